-- Locks what revocations may end: the tokens named by id, subject, issuer or age that are not revoked yet, and for a
-- cascade those that are, since it goes on behind them. The lock waits for a commit that holds one of them FOR SHARE as
-- its issuer, so that what it issued is seen by the next level. In order of id, so that two such queries never wait for
-- each other.
select
  tokens.id, tokens.subject, tokens.audiences, tokens.scopes, tokens.grants, tokens.created_at, tokens.revoked_at,
  tokens.issued_by
from tokens
where
  (tokens.revoked_at is null or $5::boolean)
  and (
    tokens.id = any ($1::uuid [])
    or tokens.subject = any ($2::text [])
    or tokens.issued_by = any ($3::uuid [])
    or tokens.created_at < $4::timestamptz
  )
order by tokens.id
for update
