// Package fuzzing helps the fuzz targets of the decoders. Only tests import it.
//
// A decoder of messages, files or configurations must refuse invalid input. It must not allocate
// much more than the size of its input: a length that the input claims is no reason to allocate
// memory. Bounded checks the latter.
package fuzzing
