# The configuration of dynast on this host, for /etc/dynast/config.hcl. The unit dynast.service uses it,
# and so does every command that is run where there is no config.hcl.
#
# Write only the fields that you want to change. 'dynast config print' shows all fields and their values,
# and 'man 5 dynast-config' explains them. After a change:
#
#   dynast config check           # finds mistakes
#   systemctl reload dynast       # or: dynast reload
#
# An upgrade of a package keeps this file as you have written it.

# This must be an absolute path, because commands are run in any directory. The unit can only write to
# /var/lib/dynast; for another directory add ReadWritePaths= to the unit.
data_dir = "/var/lib/dynast"
