-- Takes the next position, with what it is about, and wakes who waits for news. The row lock, held until the commit, is
-- what makes positions commit in order and without gaps; so this comes last in the transaction, and is never a sequence.
-- NOTIFY takes a lock of the whole server at the commit: once for all that share the transaction.
with taken as (
  update feed
  set position = feed.position + 1, mark = gen_random_uuid()
  returning feed.epoch, feed.position, feed.mark
),

numbered as (
  insert into positions (number, mark, everything)
  select
    taken.position, taken.mark, $1::boolean
  from taken
),

changed as (
  insert into changes (position, token_id)
  select
    taken.position, given.id
  from taken
  cross join unnest($2::uuid []) as given (id)
)

select
  taken.epoch, taken.position, pg_notify('watchword_news', '')
from taken
