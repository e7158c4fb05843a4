-- Which of these tokens exist, are bound, and name the service as an audience: of others no call is refused for where it
-- comes from.
select given.number
from unnest($1::uuid [], $2::text [], $3::bigint []) as given (token_id, service, number)
inner join tokens on given.token_id = tokens.id
where
  tokens.id = any ($1::uuid [])
  and (tokens.allowed_networks is not null or tokens.certificate_sha256 is not null)
  and (
    given.service = any (tokens.audiences)
    or (given.service <> 'watchword' and '*' = any (tokens.audiences))
  )
order by given.number
