-- Which tokens the position is about.
insert into changes (position, token_id)
select
  $1, given.id
from unnest($2::uuid []) as given (id)
