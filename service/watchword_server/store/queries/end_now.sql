-- Ends tokens that were locked.
update tokens
set expires_at = now()
where tokens.id = any ($1::uuid [])
