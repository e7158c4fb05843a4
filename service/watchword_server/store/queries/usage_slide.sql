-- Moves on when sessions end that were used. Never back, and never for one that has ended meanwhile: ended is ended, also
-- where the use was before the end and is only told now. The clock and not the transaction's beginning, because this may
-- have waited for a row. Rows are locked in order of id, as revocations lock them.
with used as (
  select tokens.id
  from tokens
  where tokens.id = any ($1::uuid [])
  order by tokens.id
  for no key update
)

update tokens
set idle_expires_at = given.last_used_at + make_interval(secs => tokens.idle_seconds + $3::double precision)
from unnest($1::uuid [], $2::timestamptz []) as given (id, last_used_at)
inner join used on given.id = used.id
where
  tokens.id = given.id
  and tokens.id = any ($1::uuid [])
  and tokens.revoked_at is null
  and tokens.expires_at > clock_timestamp()
  and tokens.idle_expires_at > clock_timestamp()
  and tokens.idle_expires_at < given.last_used_at + make_interval(secs => tokens.idle_seconds + $3::double precision)
