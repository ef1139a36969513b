/*-------------------------------------------------------------------------
 *
 * slots.c
 *		The workers of all databases, each in a slot of shared memory.
 *
 * A TsWorker is where a scheduler and one of its workers meet: the scheduler
 * hands tasks out, the worker reports what became of them.  A slot is used
 * like this:
 *
 *		FREE -> ASKED		the scheduler wants a worker for a role
 *		ASKED -> FREE		it has changed its mind
 *		ASKED -> STARTING	the launcher has registered the process
 *		STARTING -> READY	the worker has connected
 *		any -> FREE		the worker has left (its exit callback, which is
 *						registered before it connects and so runs after
 *						its transaction is gone), or the launcher finds
 *						that it never came up
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "replication/syncrep.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/timestamp.h"

#include "shared/shared.h"

TsWorker   *ts_my_worker = NULL;
TsDatabase *ts_my_database = NULL;

/*
 * Return whether a database may have one more slot.  There are more of them
 * than processes that we can have, but wishes for workers take some, too.  The
 * last are for databases that have none.
 */
static bool
slot_may_ask(Oid database)
{
	int			nfree = 0;
	int			nown = 0;
	int			ndatabases = 0;

	Assert(LWLockHeldByMeInMode(ts_shared->lock, LW_EXCLUSIVE));
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		TsWorker   *worker = &ts_shared->workers[i];

		SpinLockAcquire(&worker->mutex);
		if (worker->state == TS_WORKER_FREE)
			nfree++;
		else if (worker->database == database)
			nown++;
		SpinLockRelease(&worker->mutex);
	}
	for (int i = 0; i < TS_MAX_DATABASES; i++)
	{
		TsDatabase *db = &ts_shared->databases[i];

		SpinLockAcquire(&db->mutex);
		if (db->state == TS_DB_RUNNING)
			ndatabases++;
		SpinLockRelease(&db->mutex);
	}
	return nown == 0 || nfree > ndatabases;
}

/* Have a slot stand for a worker that is asked for.  The caller has its mutex. */
static void
slot_begin_use(TsWorker *worker, Oid database, Oid role, bool is_superuser,
			   int64 first_id, TimestampTz first_run_at, TimestampTz now)
{
	worker->state = TS_WORKER_ASKED;
	worker->unseen = false;
	worker->since = now;
	worker->generation++;
	worker->database = database;
	worker->role = role;
	worker->is_superuser = is_superuser;
	worker->first_id = first_id;
	worker->first_run_at = first_run_at;
	worker->proc = NULL;
	worker->pid = 0;
	worker->retire = false;
	worker->shortage = false;
	worker->running_id = 0;
	worker->running_revision = 0;
	worker->running_since = 0;
	worker->nmembers = 0;
	worker->typical = 0;
	worker->timed_out = false;
	worker->bystander = false;
	worker->stuck = false;
	pg_atomic_write_u64(&worker->stop_request, 0);
	worker->serial = 0;
	worker->handed_head = worker->handed_tail = 0;
	worker->reports_head = worker->reports_tail = 0;
}

/*
 * Ask the launcher for a worker, because of a task.  Return its slot, or NULL
 * when there is none left for this database.  Only the database's scheduler
 * calls this.
 *
 * A slot whose last worker's end its own scheduler has not seen still tells
 * what that worker was at.  Other databases take such slots when there are no
 * others, and this one when it has seen it.
 */
TsWorker *
slot_ask(Oid database, Oid role, bool is_superuser,
		 int64 first_id, TimestampTz first_run_at)
{
	TimestampTz now = GetCurrentTimestamp();
	TsWorker   *found = NULL;
	int			nslots = ts_shared->nslots;
	bool		may;

	LWLockAcquire(ts_shared->lock, LW_EXCLUSIVE);
	may = slot_may_ask(database);
	for (int i = 0; may && found == NULL && i < 2 * nslots; i++)
	{
		TsWorker   *worker = &ts_shared->workers[i % nslots];

		SpinLockAcquire(&worker->mutex);
		if (worker->state == TS_WORKER_FREE &&
			(!worker->unseen || (i >= nslots && worker->database != database)))
		{
			found = worker;
			slot_begin_use(worker, database, role, is_superuser, first_id, first_run_at, now);
		}
		SpinLockRelease(&worker->mutex);
	}
	LWLockRelease(ts_shared->lock);

	if (found != NULL)
		shared_wake_launcher();
	return found;
}

/*
 * Give a slot back and tell the scheduler, which looks after whatever the
 * worker has left undone.  running_id stays, to say what it was at.
 */
void
slot_free(TsWorker *worker)
{
	TsDatabase *db;
	Oid			database;

	SpinLockAcquire(&worker->mutex);
	database = worker->database;
	worker->state = TS_WORKER_FREE;
	worker->unseen = true;
	worker->proc = NULL;
	worker->pid = 0;
	SpinLockRelease(&worker->mutex);

	db = database_find(database);
	if (db != NULL)
		database_wake_scheduler(db);
}

/* Wake the scheduler without taking a lock, from a signal handler. */
void
slot_wake_scheduler_from_handler(void)
{
	PGPROC	   *scheduler = ((volatile TsDatabase *) ts_my_database)->scheduler;

	if (scheduler != NULL)
		SetLatch(&scheduler->procLatch);
}

/* Decide to leave.  The scheduler gives what was handed out to others. */
void
slot_retire(void)
{
	TsWorker   *worker = ts_my_worker;

	SpinLockAcquire(&worker->mutex);
	worker->retire = true;
	SpinLockRelease(&worker->mutex);
}

/* Return whether a worker has nothing to do.  The caller has its mutex. */
static bool
slot_is_idle(const TsWorker *worker)
{
	return worker->state == TS_WORKER_READY && worker->running_id == 0 &&
		worker->handed_head == worker->handed_tail;
}

/*
 * Return whether the run of a worker can be stopped.  The caller has its mutex.
 * A run whose callback is done can only be kept from waiting for a standby: it
 * is committed by then.
 */
static bool
slot_can_stop(const TsWorker *worker)
{
	return !worker->ending ||
		((volatile PGPROC *) worker->proc)->syncRepState == SYNC_REP_WAITING;
}

/* Look what is in a slot, whose mutex the caller has. */
static void
slot_copy(const TsWorker *worker, SlotView *view)
{
	view->state = worker->state;
	view->generation = worker->generation;
	view->since = worker->since;
	view->database = worker->database;
	view->role = worker->role;
	view->pid = worker->pid;
	view->leaving = worker->retire;
	view->idle = slot_is_idle(worker);
	view->running_id = worker->running_id;
	view->running_since = worker->running_since;
	view->serial = worker->serial;
}

/* Look what is in a slot. */
void
slot_look(int slot, SlotView *view)
{
	TsWorker   *worker = &ts_shared->workers[slot];

	SpinLockAcquire(&worker->mutex);
	slot_copy(worker, view);
	SpinLockRelease(&worker->mutex);
}

/*
 * Look what is in a slot, and which runs: those that are done and not committed, and
 * the one in progress.  Return how many there are; runs has room for
 * TS_MAX_TASKS_PER_COMMIT.
 */
int
slot_look_runs(int slot, SlotView *view, TsMember *runs)
{
	TsWorker   *worker = &ts_shared->workers[slot];
	int			n;

	SpinLockAcquire(&worker->mutex);
	slot_copy(worker, view);
	n = worker->nmembers;
	memcpy(runs, worker->members, n * sizeof(TsMember));
	if (worker->running_id != 0)
		runs[n++] = (TsMember)
	{
		worker->running_id, worker->running_since
	};
	SpinLockRelease(&worker->mutex);
	return n;
}

/*
 * Return whether a worker has done a task whose run is not committed yet.  The caller
 * has its mutex.
 */
static bool
slot_has_done(const TsWorker *worker, int64 id)
{
	for (int i = 0; i < worker->nmembers; i++)
	{
		if (worker->members[i].id == id)
			return true;
	}
	return false;
}

/*
 * Find the run of a task of this database that is in progress, as far as can be
 * told at this moment.  Return whether there is one.
 */
bool
slot_find_run(int64 id, SlotRun *run)
{
	bool		found = false;

	for (int i = 0; !found && i < ts_shared->nslots; i++)
	{
		TsWorker   *worker = &ts_shared->workers[i];

		SpinLockAcquire(&worker->mutex);
		if (worker->state == TS_WORKER_READY && worker->database == MyDatabaseId)
		{
			bool		running = (worker->running_id == id);

			found = running || slot_has_done(worker, id);
			if (found)
			{
				run->slot = i;
				run->generation = worker->generation;
				run->serial = worker->serial;
				/* of those that are done only their commit can wait */
				run->can_stop = (running || worker->ending) && slot_can_stop(worker);
			}
		}
		SpinLockRelease(&worker->mutex);
	}
	return found;
}

/* Return whether a run of a task of this database is in progress. */
bool
slot_is_running(int64 id)
{
	SlotRun		run;

	return slot_find_run(id, &run);
}

/*
 * Ask a worker to stop a run, if it still is at it; else it does nothing.  The
 * signal is for stop.c.  Nothing here can fail: it is called by transactions that
 * are over already.
 */
void
slot_request_stop(const SlotRun *run)
{
	TsWorker   *worker = &ts_shared->workers[run->slot];
	int			pid = 0;

	SpinLockAcquire(&worker->mutex);
	if (worker->state == TS_WORKER_READY && worker->generation == run->generation &&
		worker->serial == run->serial && worker->running_id != 0)
	{
		uint32		count = (uint32) pg_atomic_read_u64(&worker->stop_request) + 1;

		pid = worker->pid;
		pg_atomic_write_u64(&worker->stop_request, ((uint64) run->serial << 32) | count);
	}
	SpinLockRelease(&worker->mutex);
	if (pid != 0)
		kill(pid, SIGUSR2);
}

/*
 * Have the worker of a slot leave as soon as its run is over, or only if it has
 * nothing to do, if it still is that one.  Return whether it was told.
 */
bool
slot_send_away(int slot, uint32 generation, bool if_idle)
{
	TsWorker   *worker = &ts_shared->workers[slot];
	PGPROC	   *proc = NULL;

	SpinLockAcquire(&worker->mutex);
	if (worker->generation == generation && (!if_idle || slot_is_idle(worker)))
	{
		worker->retire = true;
		proc = worker->proc;
	}
	SpinLockRelease(&worker->mutex);
	if (proc != NULL)
		SetLatch(&proc->procLatch);
	return proc != NULL;
}
