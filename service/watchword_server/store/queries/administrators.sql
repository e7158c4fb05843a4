-- When the last live administrator ends. An administrator holds `watchword.*`, is good for calls to Watchword, and can
-- issue; the first condition is the index's. One that was rotated does not count: it is about to end, and its successor
-- is there (test_a_rotated_administrator_does_not_count).
select
  max(tokens.expires_at) as last_ends_at, now() as read_at
from tokens
where
  'watchword.*' = any (tokens.scopes)
  and 'watchword' = any (tokens.audiences)
  and tokens.grants is not null
  and tokens.successor_id is null
  and tokens.revoked_at is null
  and tokens.expires_at > now()
  and (tokens.idle_expires_at is null or tokens.idle_expires_at > now())
