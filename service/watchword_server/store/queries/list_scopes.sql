-- One page of the catalogue, in order of names.
select
  scopes.name, scopes.description, scopes.owner, scopes.live_tokens, scopes.counted_at
from scopes
where scopes.name > $1
order by scopes.name
limit $2
