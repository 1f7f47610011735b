// Package hosts makes a host one of several: it joins the cluster that its configuration names.
package hosts
