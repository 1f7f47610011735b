// Package fuzzing helps the fuzz targets of the decoders. Only tests import it.
//
// A decoder of a wire, a file or a configuration has to refuse what makes no
// sense, and to allocate no more than its input is worth: a length in the input
// is no reason to reserve memory. Bounded measures the latter.
package fuzzing
