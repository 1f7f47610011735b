# The configuration of this host, for /etc/dynast/config.hcl. The unit scripts/dynast.service uses it,
# and so does every command that is run where there is no config.hcl. 'dynast config print' shows all
# fields and their values, and config.hcl of the source explains them.

# This must be an absolute path, because commands are run in any directory. The unit can only write to
# /var/lib/dynast; for another directory add ReadWritePaths= to the unit.
data_dir = "/var/lib/dynast"
