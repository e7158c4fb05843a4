-- The epoch, and whether this PostgreSQL is the one in which it began.
select
  feed.epoch,
  (feed.system_identifier, feed.timeline) is not distinct from (here.system_identifier, here.timeline) as here
from feed
cross join server_identity() as here
