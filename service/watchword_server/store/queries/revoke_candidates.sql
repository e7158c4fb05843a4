-- Locks what revocations may end: the tokens named by id, subject or owner, issuer, age, predecessor, or the lineage that
-- they are tied to, which are not revoked yet, and for a cascade those that are, since it goes on behind them. The lock
-- waits for a commit that holds one of them as its issuer, or rotates it, so that what it stored is seen by the next
-- level. In order of id, so that two such queries never wait for each other.
select
  tokens.id, tokens.subject, tokens.audiences, tokens.scopes, tokens.grants, tokens.created_at, tokens.revoked_at,
  tokens.issued_by, tokens.owner, tokens.lineage_id, tokens.predecessor_id, tokens.successor_id, tokens.tied_to,
  least(tokens.expires_at, tokens.idle_expires_at) > now() as unexpired
from tokens
where
  (tokens.revoked_at is null or $5::boolean)
  and (
    tokens.id = any ($1::uuid [])
    or tokens.subject = any ($2::text [])
    or tokens.owner = any ($2::text [])
    or tokens.issued_by = any ($3::uuid [])
    or tokens.created_at < $4::timestamptz
    or tokens.predecessor_id = any ($6::uuid [])
    or tokens.tied_to = any ($7::uuid [])
  )
order by tokens.id
for update
