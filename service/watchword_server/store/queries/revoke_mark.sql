-- Ends tokens that revoke_candidates.sql locked.
update tokens
set revoked_at = now(), revoke_reason = $2
where tokens.id = any ($1::uuid []) and tokens.revoked_at is null
