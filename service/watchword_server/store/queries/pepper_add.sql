-- Notes a pepper version at its first use; what is there stays.
insert into pepper_checks (version, check_value)
values ($1, $2)
on conflict (version) do nothing
