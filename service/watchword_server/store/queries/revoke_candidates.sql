-- Locks what revocations may end: the tokens named by id, subject or owner, issuer (or who made them by rotating
-- another's), age, predecessor, or the lineage that they are tied to, which are not revoked yet, and for a cascade those
-- that are, since it goes on behind them. The lock waits for a commit that holds one of them as its issuer, or rotates
-- it, so that what it stored is seen by the next level. In order of id, so that two such queries never wait for each other.
--
-- Null where nothing is named in one of these ways: the planner leaves that part out. Of an empty list it believes that
-- any partial index would serve, and reads one (test_tokens_are_found_by_indexes).
select
  tokens.id, tokens.subject, tokens.audiences, tokens.scopes, tokens.grants, tokens.created_at, tokens.revoked_at,
  tokens.issued_by, tokens.owner, tokens.lineage_id, tokens.predecessor_id, tokens.successor_id, tokens.tied_to,
  tokens.rotated_by, least(tokens.expires_at, tokens.idle_expires_at) > now() as unexpired
from tokens
where
  (tokens.revoked_at is null or $5::boolean)
  and (
    ($1::uuid [] is not null and tokens.id = any ($1))
    or ($2::text [] is not null and tokens.subject = any ($2))
    or ($2::text [] is not null and tokens.owner = any ($2))
    or ($3::uuid [] is not null and tokens.issued_by = any ($3))
    or ($3::uuid [] is not null and tokens.rotated_by = any ($3))
    or tokens.created_at < $4::timestamptz
    or ($6::uuid [] is not null and tokens.predecessor_id = any ($6))
    or ($7::uuid [] is not null and tokens.tied_to = any ($7))
  )
order by tokens.id
for update
