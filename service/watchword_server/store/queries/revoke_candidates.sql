-- Locks what a revocation may end: the tokens named by id, subject or issuer that are not revoked yet, and for a cascade
-- those that are, since it goes on behind them. The lock waits for a commit that holds one of them FOR SHARE as its
-- issuer, so that what it issued is seen by the next level.
select
  tokens.id, tokens.subject, tokens.audiences, tokens.scopes, tokens.grants, tokens.revoked_at
from tokens
where
  (tokens.revoked_at is null or $4::boolean)
  and (
    tokens.id = any ($1::uuid [])
    or tokens.subject = $2::text
    or tokens.issued_by = any ($3::uuid [])
  )
order by tokens.id
for update
