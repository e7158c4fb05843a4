-- Check values of all pepper versions ever used.
select
  pepper_checks.version, pepper_checks.check_value
from pepper_checks
