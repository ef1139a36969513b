/*-------------------------------------------------------------------------
 *
 * crash_record.c
 *		What was running when the server died.
 *
 * A callback that crashes the server leaves no trace in the tables: the crash
 * takes back everything that its transaction did.  So each worker notes what
 * it is about to call in a small file that the postmaster has mapped, a few
 * stores and no system call for each run.  The mapping survives the restart
 * after a crash, and the file the end of the postmaster itself.
 *
 * What is found there when shared memory is built are the suspects.  The
 * scheduler of their database writes down that they were interrupted before
 * it hands anything out; those that were interrupted before run one at a time.
 *
 * The file says nothing that must be true: an entry that does not fit what is
 * in the tables is dropped, and without the file there are no suspects.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"

#include "shared/shared.h"

#define SUSPECTS_FILE	PG_STAT_TMP_DIR "/taskshed_running"

/* One for each worker slot. */
typedef struct SuspectEntry
{
	Suspect		suspect;
	pg_crc32c	crc;			/* of the above; an empty entry has none */
} SuspectEntry;

static SuspectEntry *entries = NULL;

static pg_crc32c
suspect_crc(const Suspect *suspect)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, suspect, sizeof(Suspect));
	FIN_CRC32C(crc);
	return crc;
}

/*
 * Make the file as large as it must be, with all of it on the disk: where a
 * mapped file has a hole and the disk is full, a store ends the process.
 */
static bool
crash_record_allocate(int fd, Size size)
{
	char	   *content = palloc0(size);
	bool		done;

	errno = 0;
	done = (pg_pread(fd, content, size, 0) >= 0 && ftruncate(fd, size) == 0 &&
			pg_pwrite(fd, content, size, 0) == (ssize_t) size);
	if (!done && errno == 0)
		errno = ENOSPC;
	pfree(content);
	return done;
}

/* Map the file. */
static void
crash_record_map(Size size)
{
	int			fd = BasicOpenFile(SUSPECTS_FILE, O_RDWR | O_CREAT | PG_BINARY);
	void	   *address = MAP_FAILED;

	if (fd >= 0 && crash_record_allocate(fd, size))
		address = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (address == MAP_FAILED)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not map file \"%s\": %m", SUSPECTS_FILE),
				 errdetail("taskshed will not know which task a crash of the server was due to.")));
	else
		entries = address;
	if (fd >= 0)
		close(fd);
}

/*
 * Find the suspects, and begin a new record.  For the postmaster, whenever
 * shared memory has been built.
 */
void
crash_record_startup(void)
{
	int			n = 0;

	if (entries == NULL)
		crash_record_map(ts_shared->nslots * sizeof(SuspectEntry));
	if (entries == NULL)
		return;
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		if (entries[i].suspect.id != 0 && entries[i].crc == suspect_crc(&entries[i].suspect))
			ts_shared->suspects[n++] = entries[i].suspect;
	}
	ts_shared->nsuspects = n;
	memset(entries, 0, ts_shared->nslots * sizeof(SuspectEntry));
}

/* Note what this worker is about to call. */
void
crash_record_note(const Suspect *suspect)
{
	SuspectEntry *entry = &entries[ts_my_worker - ts_shared->workers];

	if (entries == NULL)
		return;
	entry->suspect = *suspect;
	pg_write_barrier();
	entry->crc = suspect_crc(suspect);
}

/* Take that back, when the call is over. */
void
crash_record_clear(void)
{
	if (entries != NULL)
		entries[ts_my_worker - ts_shared->workers].suspect.id = 0;
}

/*
 * Take back what was noted of a run, when the scheduler has written down that
 * it was lost.
 */
void
crash_record_forget(int slot, int64 id)
{
	if (entries != NULL && slot >= 0 && entries[slot].suspect.id == id)
		entries[slot].suspect.id = 0;
}

/* Take one suspect of a database.  Return false if there is none left. */
bool
crash_record_take(Oid database, Suspect *suspect)
{
	bool		found = false;

	SpinLockAcquire(&ts_shared->mutex);
	for (int i = 0; !found && i < ts_shared->nsuspects; i++)
	{
		if (ts_shared->suspects[i].database == database)
		{
			*suspect = ts_shared->suspects[i];
			ts_shared->suspects[i] = ts_shared->suspects[--ts_shared->nsuspects];
			found = true;
		}
	}
	SpinLockRelease(&ts_shared->mutex);
	return found;
}
