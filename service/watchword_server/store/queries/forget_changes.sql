-- Prunes changes older than $1 seconds, about $2 of them, and says up to which position; null: there is nothing to do.
-- The position pruned to keeps its row: a reader that stands there shows its mark. Before forget_changes_to.sql, so that
-- the feed's row is locked only for the commit.
with last as (
  select max(positions.number) as number
  from feed
  inner join positions on
    positions.number > feed.pruned_to
    and positions.number <= feed.pruned_to + $2
    and positions.number <= coalesce((
      select changes.position
      from changes
      where changes.position > feed.pruned_to
      order by changes.position, changes.token_id
      offset $2 - 1 limit 1
    ), feed.position)
  where positions.taken_at < now() - make_interval(secs => $1)
),

forgotten_changes as (
  delete from changes
  using feed, last
  where changes.position > feed.pruned_to and changes.position <= last.number
),

forgotten_positions as (
  delete from positions
  using feed, last
  where positions.number >= feed.pruned_to and positions.number < last.number
)

select last.number from last
