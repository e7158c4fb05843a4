-- As revoke_candidates.sql, for tokens named by id alone: only the partitions that the ids lie in are opened
-- (test_revocations_by_id_open_only_the_partitions_of_those_ids).
select
  tokens.id, tokens.subject, tokens.audiences, tokens.scopes, tokens.grants, tokens.created_at, tokens.revoked_at,
  tokens.issued_by
from tokens
where tokens.id = any ($1::uuid []) and (tokens.revoked_at is null or $2::boolean)
order by tokens.id
for update
