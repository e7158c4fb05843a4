-- As revoke_candidates.sql, for tokens named by id alone: only the partitions that the ids lie in are opened
-- (test_revocations_by_id_open_only_the_partitions_of_those_ids).
select
  tokens.id, tokens.subject, tokens.audiences, tokens.scopes, tokens.grants, tokens.created_at, tokens.revoked_at,
  tokens.issued_by, tokens.owner, tokens.lineage_id, tokens.predecessor_id, tokens.successor_id, tokens.tied_to,
  least(tokens.expires_at, tokens.idle_expires_at) > now() as unexpired
from tokens
where tokens.id = any ($1::uuid []) and (tokens.revoked_at is null or $2::boolean)
order by tokens.id
for update
