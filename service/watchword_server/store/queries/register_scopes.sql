-- Adds names and updates descriptions of one's own; a name of another owner is left as it is and not returned.
insert into scopes as known (name, description, owner)
select
  given.name, given.description, $3
from unnest($1::text [], $2::text []) as given (name, description)
order by given.name
on conflict (name) do update set description = excluded.description
  where known.owner = excluded.owner
returning known.name, (known.xmax = 0) as is_new
