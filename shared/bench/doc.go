// Package bench measures a running cluster from outside, with a stock etcd
// client.
package bench
