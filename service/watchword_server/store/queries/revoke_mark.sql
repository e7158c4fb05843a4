-- Ends tokens that were locked, each for its reason. The ids are given a second time as `= any`, for which the planner
-- leaves out the partitions that they do not lie in
-- (test_revocations_by_id_open_only_the_partitions_of_those_ids).
update tokens
set revoked_at = now(), revoke_reason = given.reason
from unnest($1::uuid [], $2::text []) as given (id, reason)
where tokens.id = given.id and tokens.id = any ($1::uuid []) and tokens.revoked_at is null
