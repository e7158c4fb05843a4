-- Begins a new epoch on a PostgreSQL that is not the one in which the last one began. Where none was ever noted, this is
-- the first look, and nothing else happened.
update feed
set
  epoch = case when feed.system_identifier is null then feed.epoch else gen_random_uuid() end,
  epoch_began_at = case when feed.system_identifier is null then feed.epoch_began_at else now() end,
  epoch_settled = feed.epoch_settled and feed.system_identifier is null,
  system_identifier = here.system_identifier,
  timeline = here.timeline
from server_identity() as here
where (feed.system_identifier, feed.timeline) is distinct from (here.system_identifier, here.timeline)
