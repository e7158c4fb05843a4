-- What is left of a token's scopes and life.
update tokens
set scopes = $2::text [], expires_at = $3
where tokens.id = $1
