/*-------------------------------------------------------------------------
 *
 * shared.c
 *		The shared memory of all our processes: what there is, and its start.
 *
 * The databases are in database_entry.c, the workers in slots.c, and what was
 * running when the server died in crash_record.c.
 *
 * Each entry has a spinlock for its own fields; nobody holds two of them, and
 * nothing is done under one but loads and stores.  ts_shared->lock is taken
 * before a spinlock, never after it.
 *
 * After a crash of any process the postmaster builds all of this anew.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "portability/instr_time.h"
#include "postmaster/bgworker_internals.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/shmem.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "shared/shared.h"

TsShared   *ts_shared = NULL;


static Size
shared_size(void)
{
	return add_size(MAXALIGN(add_size(offsetof(TsShared, workers),
									  mul_size(max_worker_processes, sizeof(TsWorker)))),
					mul_size(max_worker_processes, sizeof(Suspect)));
}

/* Ask for the memory, while shared_preload_libraries are loaded. */
void
shared_request(void)
{
	RequestAddinShmemSpace(shared_size());
	RequestNamedLWLockTranche("taskshed", 2);
}

/*
 * Build what there is, or find it.  Return whether it was built: at the server's
 * start, and after a crash.
 */
bool
shared_startup(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	ts_shared = ShmemInitStruct("taskshed", shared_size(), &found);
	if (!found)
	{
		memset(ts_shared, 0, shared_size());
		pg_atomic_init_u32(&ts_shared->role_changes, 0);
		pg_atomic_init_u32(&ts_shared->reloads, 0);
		pg_atomic_init_u32(&ts_shared->unnamed_prepared, 0);
		ts_shared->lock = &GetNamedLWLockTranche("taskshed")[0].lock;
		ts_shared->quota_lock = &GetNamedLWLockTranche("taskshed")[1].lock;
		pg_atomic_init_u32(&ts_shared->quota_counts, 0);
		ts_shared->nslots = max_worker_processes;
		ts_shared->suspects = (Suspect *)
			((char *) ts_shared + MAXALIGN(offsetof(TsShared, workers) +
										   max_worker_processes * sizeof(TsWorker)));
		SpinLockInit(&ts_shared->mutex);
		SpinLockInit(&ts_shared->prepared_mutex);
		for (int i = 0; i < TS_MAX_DATABASES; i++)
			SpinLockInit(&ts_shared->databases[i].mutex);
		for (int i = 0; i < ts_shared->nslots; i++)
		{
			SpinLockInit(&ts_shared->workers[i].mutex);
			pg_atomic_init_u64(&ts_shared->workers[i].stop_request, 0);
		}
	}
	LWLockRelease(AddinShmemInitLock);
	return !found;
}

void
shared_wake_launcher(void)
{
	PGPROC	   *launcher;

	SpinLockAcquire(&ts_shared->mutex);
	launcher = ts_shared->launcher;
	SpinLockRelease(&ts_shared->mutex);
	if (launcher != NULL)
		SetLatch(&launcher->procLatch);
}

/* Have the launcher look into all databases that can be connected to. */
void
shared_look_around(void)
{
	SpinLockAcquire(&ts_shared->mutex);
	ts_shared->look_around = true;
	SpinLockRelease(&ts_shared->mutex);
	shared_wake_launcher();
}

/* Ask the launcher to see to it that WAL is on disk up to there. */
void
shared_ask_flush(XLogRecPtr lsn)
{
	PGPROC	   *launcher = NULL;

	SpinLockAcquire(&ts_shared->mutex);
	if (lsn > ts_shared->flush_to)
		launcher = ts_shared->launcher;
	ts_shared->flush_to = Max(ts_shared->flush_to, lsn);
	SpinLockRelease(&ts_shared->mutex);
	if (launcher != NULL)
		SetLatch(&launcher->procLatch);
}

/* Return up to where WAL is to be on disk. */
XLogRecPtr
shared_flush_asked(void)
{
	XLogRecPtr	lsn;

	SpinLockAcquire(&ts_shared->mutex);
	lsn = ts_shared->flush_to;
	SpinLockRelease(&ts_shared->mutex);
	return lsn;
}
