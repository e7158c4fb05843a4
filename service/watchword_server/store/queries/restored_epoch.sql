-- Begins a new epoch, whatever the last one was: leases of before may still be out there.
update feed
set
  epoch = gen_random_uuid(),
  epoch_began_at = now(),
  epoch_settled = false,
  system_identifier = here.system_identifier,
  timeline = here.timeline
from server_identity() as here
