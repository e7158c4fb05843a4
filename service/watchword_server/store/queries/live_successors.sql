-- The latest token of each of these lineages, where that one was rotated into being and is live.
select
  tokens.lineage_id, tokens.id
from tokens
where
  tokens.lineage_id = any ($1::uuid []) and tokens.successor_id is null and tokens.revoked_at is null
  and least(tokens.expires_at, tokens.idle_expires_at) > now()
