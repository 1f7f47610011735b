// Package health asks a program how it is: with a request over HTTP, gRPC or TCP, or with a
// command. And it reads what programs say by themselves, on the notify socket of sd_notify(3).
//
// It only reports results. Package shared/rules/services decides what follows from them.
package health
