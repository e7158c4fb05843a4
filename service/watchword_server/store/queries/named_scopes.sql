-- Entries of the catalogue by name.
select
  scopes.name, scopes.description, scopes.owner, scopes.live_tokens, scopes.counted_at
from scopes
where scopes.name = any ($1::text [])
