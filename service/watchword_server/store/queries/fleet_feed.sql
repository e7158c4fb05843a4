-- What happened after a position, read in one snapshot with where the feed stands and what was pruned. About $2 ids: a
-- position is never split over two pages.
select
  feed.epoch, feed.position, feed.mark, feed.pruned_to, feed.epoch_settled, feed.longest_lease_seconds,
  (select positions.mark from positions where positions.number = $1) as mark_asked,
  page.number, page.mark as page_mark, page.everything, page.token_ids
from feed
left join lateral (
  select
    positions.number, positions.mark, positions.everything,
    array(select changes.token_id from changes where changes.position = positions.number) as token_ids
  from positions
  where
    positions.number > $1
    and positions.number <= $1 + $2
    and positions.number <= coalesce((
      select changes.position
      from changes
      where changes.position > $1
      order by changes.position, changes.token_id
      offset $2 - 1 limit 1
    ), feed.position)
) as page on true
order by page.number
