-- Every name in the catalogue.
select scopes.name
from scopes
