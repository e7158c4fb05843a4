-- Rotated tokens in their grace period that nobody uses any more, while their successors are live and in use. $1 is for
-- how many seconds: what is stored of tokens' use is behind, so it holds more than the silence that is asked for. No
-- token counts as silent for longer than since it was rotated. Those that another server looks at, or that are being
-- revoked, are left to them. Scalar subqueries, each of which opens the one partition that its id lies in
-- (test_looking_for_silent_tokens_reads_the_use_of_those_alone).
select
  tokens.id, tokens.successor_id
from tokens
where
  tokens.successor_id is not null
  and tokens.revoked_at is null
  and tokens.expires_at > now()
  -- Once more when it has been locked: another server may have ended it after this transaction began.
  and tokens.expires_at > clock_timestamp()
  and (tokens.idle_expires_at is null or tokens.idle_expires_at > now())
  and tokens.rotated_at <= now() - make_interval(secs => $1::double precision)
  and coalesce(
    (select max(token_usage.last_used_at) from token_usage where token_usage.token_id = tokens.id), tokens.rotated_at
  ) <= now() - make_interval(secs => $1::double precision)
  and (select count(*) from token_usage where token_usage.token_id = tokens.successor_id) > 0
  and (
    select count(*) from tokens as successor
    where successor.id = tokens.successor_id and successor.revoked_at is null and successor.expires_at > now()
  ) > 0
order by tokens.id
limit $2
for update of tokens skip locked
