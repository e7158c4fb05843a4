-- What is left of a token's scopes and life.
update tokens
set
  scopes = $2::text [],
  expires_at = $3,
  shortened = case when tokens.expires_at > $3 then true else tokens.shortened end
where tokens.id = $1
