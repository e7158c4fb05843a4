-- Counts a renewal; never inserts. Nothing happens where the epoch is over, or should be: this PostgreSQL is another.
update replicas
set renewals = replicas.renewals + 1, renewed_at = now()
from feed
cross join server_identity() as here
where
  replicas.key = $1 and replicas.epoch = $2 and feed.epoch = $2
  and feed.system_identifier = here.system_identifier and feed.timeline = here.timeline
returning replicas.key
