-- Begins a new epoch after this one, unless somebody was faster.
update feed
set
  epoch = gen_random_uuid(),
  epoch_began_at = now(),
  epoch_settled = false,
  system_identifier = here.system_identifier,
  timeline = here.timeline
from server_identity() as here
where feed.epoch = $1
