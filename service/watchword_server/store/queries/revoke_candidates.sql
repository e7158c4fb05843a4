-- Locks what a revocation may end: the tokens named by id, subject or issuer that are not revoked yet. The lock waits
-- for a commit that holds one of them FOR SHARE as its issuer, so that what it issued is seen by the next level. A cascade
-- ($4) also needs those revoked before: what they issued lives on, and is found through them.
select
  tokens.id, tokens.subject, tokens.audiences, tokens.scopes, tokens.grants, tokens.revoked_at is not null as revoked
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
