# The configuration of the service "dynast" (systemctl status dynast).
#
# Write only the fields that you want to change. All others have the defaults that
# /usr/share/doc/dynast/config.hcl explains. After a change:
#
#   dynast check --config /etc/dynast/config.hcl      # finds mistakes
#   systemctl reload dynast                           # or: dynast reload
#
# An upgrade of the package keeps this file as you have written it.

data_dir = "/var/lib/dynast"
