// Package output keeps what a supervised program prints. The program writes straight into
// a file that it has opened with O_APPEND. No process sits between the program and the file,
// so the program never waits for dynast and never loses output because dynast has died.
// A Keeper bounds that file and records when its parts were written. A Reader reads it.
//
// It guarantees:
//
//   - Rotation loses and doubles no byte, whatever is killed and whenever, and the program
//     does not notice it. Only the limits remove output, oldest first.
//   - A Reader gives every byte once and in order, and joins a line that a rotation has cut
//     in two. It may run in another process, and it goes on while the file is rotated,
//     truncated, deleted and created again.
//   - If there is no room for a rotated file, the output stays where it is.
//   - Memory use depends neither on the size of the files nor on the length of a line.
//
// It needs a Linux file system that can punch holes. Only one Keeper per file can exist at
// a time; the kernel ends its lock together with its process. Tend may wait for the disk
// when it rotates, so its caller should not do it in a goroutine that must answer quickly.
//
// # Files
//
// For a file output.log there are
//
//   - output.log: the live file, to which the program appends;
//   - output.log.0000000000012582912: a rotated file. The number is the position of its
//     first byte in the whole output. The name is final, so a rotation renames one file,
//     once, and the range of a rotated file is always known: its name and its size;
//   - output.log.0000000000012582912.index: the index, which tells the time of every part
//     of the output from that position on. A new one begins with each rotation;
//   - output.log.state: which part of the output the live file holds, and the lock of the
//     Keeper.
//
// Positions count the bytes of the output since its beginning. A file that replaces a
// deleted or truncated one begins at the next multiple of 1 TiB, because nobody may know
// how much was written to the old one. So a position is never used twice.
//
// # Rotation
//
// The state names two positions: Base is the position of the live file's byte 0, and Start
// is the position of the first byte that counts. They differ while a rotation is under
// way, and permanently on file systems that can only punch holes. Each step below is on the
// disk before the next one begins:
//
//  1. The first blocks of the live file are copied to a temporary file.
//  2. The copy is renamed to its final name. Its range overlaps the live file until step 3.
//  3. Start moves behind the copy, and the phase becomes "cutting". From now on readers
//     use the copy.
//  4. A hole is punched into the live file from byte 0 up to Start.
//  5. The phase becomes "collapsing".
//  6. FALLOC_FL_COLLAPSE_RANGE removes the hole, if the file system can do that.
//  7. Base becomes Start, and the phase ends. If the range could not be removed, the phase
//     ends with the hole in place.
//
// A new Keeper finishes what an interrupted one has begun:
//
//   - After step 1, it removes the temporary file.
//   - After step 2, a rotated file begins at Start. That copy is complete because it was
//     complete before it got its name. The Keeper goes on with step 3.
//   - After step 3, it goes on with step 4. To punch a hole twice does no harm.
//   - After step 5, it must know whether step 6 has happened. The size of the live file
//     cannot tell, because the program may have written any amount since. The contents
//     cannot tell either, because a program may print the same text again and again. But
//     in phase "collapsing" the hole of step 4 is known to exist, and O_APPEND writers make
//     no holes. So if the file begins with a hole (SEEK_DATA), the range is still there, and
//     otherwise it has been removed.
//
// A Reader checks the state before and after it reads from the live file, and reads again
// if it has changed. In phase "collapsing" it waits for the Keeper. If there is no Keeper,
// it decides by the hole as a new Keeper would.
//
// The state file has two slots, which are written in turn and carry a sequence number and
// a checksum. A torn write leaves the older slot, which is right because the step that the
// newer one announces has not begun.
//
// # Time
//
// An index entry says that the output up to a position had been written at a time. A line
// has the time of the first entry behind its first byte. It is late by at most the interval
// between two calls of Tend. Output that appeared while no Keeper was running gets the time
// of the file's last modification. So do lines that are not in the index yet.
//
// # Other people's hands
//
// When somebody deletes or renames the live file, the program goes on writing to it. Tend
// reports this and goes on through its descriptor. Close copies what is left of such a file
// to a rotated one, because the last lines of a program matter most. A new Keeper can take
// such a file over with Adopt, from a descriptor such as /proc/PID/fd/1. A new Reader reads
// it through the descriptor of the Keeper.
//
// When somebody truncates the live file, the output goes on at a new position. This is
// noticed by the size, so it goes unnoticed if the file has already grown beyond its former
// size at the next call of Tend.
package output
