-- The position as it stands.
select
  feed.epoch, feed.position
from feed
