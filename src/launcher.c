/*-------------------------------------------------------------------------
 *
 * launcher.c
 *		The process that starts schedulers and workers.
 *
 * It is connected to no database.  When the server is up it has a scheduler
 * look into each database that can be connected to, a few at a time; one that
 * does not find the extension leaves, and is not started there again until a
 * transaction in that database asks for it.  After that the launcher acts on
 * what it finds in shared memory: databases that want a scheduler, slots for
 * which a worker has been asked.  Whoever writes that there sets its latch.
 *
 * All our processes share the server's max_worker_processes with others.  The
 * launcher leaves two of them to others, always, and waits with what it was
 * asked for until there is room again, which the view status says.
 *
 * When room is short, no database is to wait for another one's callbacks.  A
 * database that has workers gets no more of them before each of the others
 * can have one.  An idle worker leaves when there is a use for its place, and
 * a busy one after its run, if it is of the database that has most; where
 * there are more databases than places, they take turns.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "taskshed.h"

/* Databases looked into at the same time after start. */
#define PROBES				3

/* How long (ms) to wait before trying again what there was no room for. */
#define RETRY_DELAY			1000

/* The log says at most this often (us) that there is no room. */
#define COMPLAINT_INTERVAL	(60 * USECS_PER_SEC)

/* A worker that has to leave for others stays at least this long (us). */
#define TURN				USECS_PER_SEC

/* A worker's slot, as last seen. */
typedef struct Place
{
	TsWorkerState state;
	uint32		generation;
	TimestampTz since;
	Oid			database;
	Oid			role;
	bool		leaving;		/* after its run, if it is at one */
	bool		idle;
	TimestampTz running_since;
} Place;

/* Processes that were started, by their entries in shared memory. */
static BackgroundWorkerHandle **scheduler_handles;
static BackgroundWorkerHandle **worker_handles;

/* Databases that remain to be looked into. */
static List *unprobed = NIL;

/* What launcher_look has found. */
static Place *places;
static int	nschedulers;
static int	nworkers;			/* those who are leaving included */
static List *served = NIL;		/* databases that need at least one worker */
static bool full;				/* the server has no slot for us any more */

void
launcher_register(void)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "taskshed", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "ts_launcher_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "taskshed launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "taskshed launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

static void
launcher_exit(int code, Datum arg)
{
	SpinLockAcquire(&ts_shared->mutex);
	ts_shared->launcher = NULL;
	SpinLockRelease(&ts_shared->mutex);
}

/*
 * The databases that can have a scheduler: those that can be connected to and
 * are no templates, which must be free of sessions to be copied.
 */
static List *
launcher_list_databases(void)
{
	List	   *databases = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		if (form->datallowconn && !form->datistemplate)
		{
			MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

			databases = lappend_oid(databases, form->oid);
			MemoryContextSwitchTo(old);
		}
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	return databases;
}

/*
 * Looks at how the room that there is is used.  That is known from shared
 * memory: an earlier launcher may have started some of the processes.
 */
static void
launcher_look(void)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	TimestampTz now = GetCurrentTimestamp();

	nschedulers = nworkers = 0;
	full = false;
	list_free(served);
	served = NIL;
	for (int i = 0; i < TS_MAX_DATABASES; i++)
	{
		TsDatabase *db = &ts_shared->databases[i];
		bool		there;
		bool		needs_worker;

		SpinLockAcquire(&db->mutex);
		there = (db->state == TS_DB_STARTING || db->state == TS_DB_RUNNING);
		needs_worker = (db->state == TS_DB_RUNNING && !db->disabled);
		SpinLockRelease(&db->mutex);
		if (there)
			nschedulers++;
		if (needs_worker)
			served = lappend_oid(served, db->oid);
	}
	for (int i = 0; i < ts_shared->nworkers; i++)
	{
		TsWorker   *worker = &ts_shared->workers[i];
		Place	   *place = &places[i];

		SpinLockAcquire(&worker->mutex);
		place->state = worker->state;
		place->generation = worker->generation;
		place->since = worker->since;
		place->database = worker->database;
		place->role = worker->role;
		place->leaving = worker->retire;
		place->running_since = worker->running_since;
		place->idle = (worker->state == TS_WORKER_READY && worker->running_id == 0 &&
					   worker->handed_head == worker->handed_tail);
		/* one that was started for a task is about to get it */
		if (worker->serial == 0 && now - worker->since < TURN)
			place->idle = false;
		SpinLockRelease(&worker->mutex);
		if (place->state == TS_WORKER_STARTING || place->state == TS_WORKER_READY)
			nworkers++;
	}
	MemoryContextSwitchTo(old);
}

/* For how many processes more there is room. */
static int
launcher_room(void)
{
	if (full)
		return 0;
	return max_worker_processes - TS_SLOTS_LEFT_FREE - 1 - nschedulers - nworkers;
}

/*
 * The workers of a database, of all roles or of one.  Those who are leaving
 * have their places until their runs are over.
 */
static int
launcher_count_workers(Oid database, Oid role)
{
	int			n = 0;

	for (int i = 0; i < ts_shared->nworkers; i++)
	{
		const Place *place = &places[i];

		if ((place->state == TS_WORKER_STARTING || place->state == TS_WORKER_READY) &&
			place->database == database && (!OidIsValid(role) || place->role == role))
			n++;
	}
	return n;
}

/* Those of them that are leaving. */
static int
launcher_count_leaving(Oid database)
{
	int			n = 0;

	for (int i = 0; i < ts_shared->nworkers; i++)
	{
		if (places[i].state == TS_WORKER_READY && places[i].leaving &&
			places[i].database == database)
			n++;
	}
	return n;
}

/* How many databases have no worker, not counting the one named. */
static int
launcher_count_unserved(Oid but)
{
	ListCell   *lc;
	int			n = 0;

	foreach(lc, served)
	{
		if (lfirst_oid(lc) != but && launcher_count_workers(lfirst_oid(lc), InvalidOid) == 0)
			n++;
	}
	return n;
}

/*
 * Is there room for a worker of a database?  Its first can have any place;
 * further ones leave one for each database that has none.
 */
static bool
launcher_has_room_for_worker(Oid database)
{
	int			kept = 0;

	if (launcher_count_workers(database, InvalidOid) > 0)
		kept = launcher_count_unserved(database);
	return launcher_room() > kept;
}

/* Is there room for one scheduler more?  Not in the only place for workers. */
static bool
launcher_has_room_for_scheduler(void)
{
	return launcher_room() > (nworkers > 0 || nschedulers == 0 ? 0 : 1);
}

/*
 * Could a worker of that database and role be started in the place of this
 * one?  Only a database without any may have the place of another's last.
 */
static bool
launcher_would_help(const Place *place, Oid database)
{
	int			n = launcher_count_workers(database, InvalidOid);
	int			kept = launcher_count_unserved(database);

	if (place->database == database)
		n--;
	else if (launcher_count_workers(place->database, InvalidOid) == 1)
		kept++;
	return launcher_room() + 1 > (n > 0 ? kept : 0);
}

/*
 * The worker whose place a database and role may have, or -1: an idle one; or,
 * if busy ones are asked for, one of the database that has most; or, for those
 * that have none at all, the one that has been there longest, if it has had
 * its turn.  For a scheduler, role is InvalidOid.
 */
static int
launcher_choose_victim(Oid database, Oid role, bool busy)
{
	TimestampTz now = GetCurrentTimestamp();
	int			nown = launcher_count_workers(database, InvalidOid);
	bool		none = (nown == 0 || launcher_count_workers(database, role) == 0);
	int			most = nown + 1;
	int			richest = -1;
	int			oldest = -1;

	for (int i = 0; i < ts_shared->nworkers; i++)
	{
		const Place *place = &places[i];
		int			n;

		if (place->state != TS_WORKER_READY || place->leaving || place->idle == busy ||
			(place->database == database && place->role == role) ||
			!launcher_would_help(place, database))
			continue;
		if (place->idle)
			return i;
		n = launcher_count_workers(place->database, InvalidOid) -
			launcher_count_leaving(place->database);
		if (place->database != database &&
			(n > most || (n == most && richest >= 0 &&
						  place->running_since > places[richest].running_since)))
		{
			most = n;
			richest = i;
		}
		if (none && now - place->since >= TURN && (place->database == database || nown == 0) &&
			(oldest < 0 || place->since < places[oldest].since))
			oldest = i;
	}
	return richest >= 0 ? richest : oldest;
}

/*
 * Has a worker leave whose place another database or role can make use of.
 * Busy ones are asked one at a time, since their runs may take long.  Returns
 * whether a place will be free at once.
 */
static bool
launcher_make_room(Oid database, Oid role)
{
	static TimestampTz evicted_at = 0;
	TimestampTz now = GetCurrentTimestamp();
	TsWorker   *worker;
	PGPROC	   *proc = NULL;
	int			victim;

	for (int i = 0; i < ts_shared->nworkers; i++)
	{
		if (places[i].idle && places[i].leaving)
			return true;
	}
	victim = launcher_choose_victim(database, role, false);
	if (victim < 0 && now - evicted_at >= RETRY_DELAY * INT64CONST(1000))
	{
		victim = launcher_choose_victim(database, role, true);
		evicted_at = now;
	}
	if (victim < 0)
		return false;

	worker = &ts_shared->workers[victim];
	SpinLockAcquire(&worker->mutex);
	if (worker->generation == places[victim].generation &&
		(!places[victim].idle ||
		 (worker->running_id == 0 && worker->handed_head == worker->handed_tail)))
	{
		worker->retire = true;
		proc = worker->proc;
	}
	SpinLockRelease(&worker->mutex);
	if (proc == NULL)
		return false;
	SetLatch(&proc->procLatch);
	places[victim].leaving = true;
	return places[victim].idle;
}

/* Says in the log that something waits for room, if that was not just said. */
static void
launcher_complain(void)
{
	static TimestampTz complained_at = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (now - complained_at < COMPLAINT_INTERVAL)
		return;
	complained_at = now;
	ereport(LOG,
			(errmsg("taskshed has no room for another process"),
			 full ?
			 errdetail("It has %d, and others use the rest of max_worker_processes = %d.",
					   1 + nschedulers + nworkers, max_worker_processes) :
			 errdetail("It has %d, keeps %d for databases without a worker, and leaves %d of max_worker_processes = %d to others.",
					   1 + nschedulers + nworkers, Max(launcher_room(), 0),
					   TS_SLOTS_LEFT_FREE, max_worker_processes),
			 errhint("Increase max_worker_processes, or lower taskshed.max_workers.")));
}

/* Starts one of our processes; NULL if the server has no slot for it. */
static BackgroundWorkerHandle *
launcher_start(const char *type, const char *function, Datum arg, uint32 generation, Oid database)
{
	BackgroundWorker worker = {0};
	BackgroundWorkerHandle *handle;
	MemoryContext old;

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "taskshed", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, function, BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, "%s for database %u", type, database);
	strlcpy(worker.bgw_type, type, BGW_MAXLEN);
	worker.bgw_main_arg = arg;
	memcpy(worker.bgw_extra, &generation, sizeof(generation));
	worker.bgw_notify_pid = MyProcPid;

	old = MemoryContextSwitchTo(TopMemoryContext);
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		handle = NULL;
	MemoryContextSwitchTo(old);
	return handle;
}

/* Forgets the processes that have ended, and what they left behind. */
static void
launcher_reap(void)
{
	pid_t		pid;

	for (int i = 0; i < TS_MAX_DATABASES; i++)
	{
		TsDatabase *db = &ts_shared->databases[i];

		if (scheduler_handles[i] == NULL ||
			GetBackgroundWorkerPid(scheduler_handles[i], &pid) != BGWH_STOPPED)
			continue;
		pfree(scheduler_handles[i]);
		scheduler_handles[i] = NULL;

		/* one that did not get as far as attaching left its state */
		SpinLockAcquire(&db->mutex);
		if (db->state == TS_DB_STARTING)
		{
			db->state = TS_DB_WANTED;
			db->start_at = GetCurrentTimestamp() + USECS_PER_SEC;
		}
		SpinLockRelease(&db->mutex);
	}

	for (int i = 0; i < ts_shared->nworkers; i++)
	{
		TsWorker   *worker = &ts_shared->workers[i];
		bool		unattached;

		if (worker_handles[i] == NULL ||
			GetBackgroundWorkerPid(worker_handles[i], &pid) != BGWH_STOPPED)
			continue;
		pfree(worker_handles[i]);
		worker_handles[i] = NULL;

		SpinLockAcquire(&worker->mutex);
		unattached = (worker->state == TS_WORKER_STARTING && worker->proc == NULL);
		SpinLockRelease(&worker->mutex);
		if (unattached)
			shared_free_worker(worker);
	}
}

/* Has a few more of the databases that were there at start looked into. */
static void
launcher_probe(void)
{
	int			starting = 0;

	for (int i = 0; i < TS_MAX_DATABASES; i++)
	{
		TsDatabase *db = &ts_shared->databases[i];

		SpinLockAcquire(&db->mutex);
		if (db->state == TS_DB_WANTED || db->state == TS_DB_STARTING)
			starting++;
		SpinLockRelease(&db->mutex);
	}
	while (unprobed != NIL && starting++ < PROBES)
	{
		TsDatabase *db = shared_reserve_database(linitial_oid(unprobed));

		unprobed = list_delete_first(unprobed);
		shared_want_scheduler(db);
		shared_release_database(db);
	}
}

/*
 * Can a database have a scheduler?  One that has been dropped or closed since
 * it was asked for is forgotten.
 */
static bool
launcher_may_serve(TsDatabase *db)
{
	List	   *databases = launcher_list_databases();
	bool		may = list_member_oid(databases, db->oid);

	list_free(databases);
	if (!may)
	{
		SpinLockAcquire(&db->mutex);
		if (db->state == TS_DB_WANTED)
			db->state = TS_DB_IDLE;
		SpinLockRelease(&db->mutex);
	}
	return may;
}

/* Says in the view status which databases wait for a slot, and which do not. */
static void
launcher_tell_waiting(List *waiting)
{
	static const char *const message =
	"waiting for a slot of max_worker_processes; increase that setting";

	for (int i = 0; i < TS_MAX_DATABASES; i++)
	{
		TsDatabase *db = &ts_shared->databases[i];

		if (db->state == TS_DB_FREE)
			continue;
		if (list_member_oid(waiting, db->oid))
			shared_set_message(db, message);
		else if (strcmp(db->message, message) == 0)
			shared_set_message(db, NULL);
	}
}

/*
 * Starts a scheduler for a database that wants one.  Returns when to try that
 * again, in ms; -1: never.
 */
static long
launcher_start_scheduler(int i, List **waiting)
{
	TsDatabase *db = &ts_shared->databases[i];
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz start_at;
	bool		wanted;

	SpinLockAcquire(&db->mutex);
	wanted = (db->state == TS_DB_WANTED);
	start_at = db->start_at;
	SpinLockRelease(&db->mutex);
	if (!wanted)
		return -1;
	if (start_at > now)
		return (long) ((start_at - now) / 1000 + 1);
	if (!launcher_may_serve(db))
		return -1;

	if (launcher_has_room_for_scheduler())
	{
		SpinLockAcquire(&db->mutex);
		db->state = TS_DB_STARTING;
		SpinLockRelease(&db->mutex);
		scheduler_handles[i] = launcher_start("taskshed scheduler", "ts_scheduler_main",
											  ObjectIdGetDatum(db->oid), 0, db->oid);
		if (scheduler_handles[i] != NULL)
		{
			nschedulers++;
			return -1;
		}
		SpinLockAcquire(&db->mutex);
		db->state = TS_DB_WANTED;
		SpinLockRelease(&db->mutex);
		full = true;
	}
	if (nworkers > 1)
		(void) launcher_make_room(db->oid, InvalidOid);
	*waiting = lappend_oid(*waiting, db->oid);
	return RETRY_DELAY;
}

/*
 * Starts the worker for which a slot was asked, if it still is.  Returns false
 * if there is no room.
 */
static bool
launcher_start_worker(int i)
{
	TsWorker   *worker = &ts_shared->workers[i];
	TimestampTz now = GetCurrentTimestamp();
	bool		asked;

	if (!launcher_has_room_for_worker(places[i].database))
		return false;
	SpinLockAcquire(&worker->mutex);
	asked = (worker->state == TS_WORKER_ASKED && worker->generation == places[i].generation);
	if (asked)
		worker->state = TS_WORKER_STARTING;
	SpinLockRelease(&worker->mutex);
	if (!asked)
	{
		places[i].state = TS_WORKER_FREE;
		return true;
	}
	worker_handles[i] = launcher_start("taskshed worker", "ts_worker_main", Int32GetDatum(i),
									   places[i].generation, places[i].database);
	SpinLockAcquire(&worker->mutex);
	if (worker_handles[i] == NULL)
		worker->state = TS_WORKER_ASKED;
	else
		worker->since = now;
	SpinLockRelease(&worker->mutex);
	if (worker_handles[i] == NULL)
	{
		full = true;
		return false;
	}
	places[i].state = TS_WORKER_STARTING;
	nworkers++;
	return true;
}

/*
 * The slot whose worker is to be started next, or -1: that of the database
 * that has fewest, of its role that has fewest, and of those that are alike
 * the one that was asked for first.
 */
static int
launcher_choose_asked(const bool *tried)
{
	int			best = -1;
	int			best_database = 0;
	int			best_role = 0;

	for (int i = 0; i < ts_shared->nworkers; i++)
	{
		const Place *place = &places[i];
		int			database;
		int			role;

		if (place->state != TS_WORKER_ASKED || worker_handles[i] != NULL || tried[i])
			continue;
		database = launcher_count_workers(place->database, InvalidOid);
		role = launcher_count_workers(place->database, place->role);
		if (best < 0 || database < best_database ||
			(database == best_database &&
			 (role < best_role || (role == best_role && place->since < places[best].since))))
		{
			best = i;
			best_database = database;
			best_role = role;
		}
	}
	return best;
}

/* Starts what was asked for.  Returns when to look again, in ms; -1: never. */
static long
launcher_start_asked(void)
{
	List	   *waiting = NIL;
	long		delay = -1;
	bool		made_room = false;
	bool	   *tried = palloc0(ts_shared->nworkers * sizeof(bool));
	int			i;

	launcher_look();
	for (i = 0; i < TS_MAX_DATABASES; i++)
	{
		long		wait;

		if (scheduler_handles[i] != NULL)
			continue;
		wait = launcher_start_scheduler(i, &waiting);
		if (wait >= 0)
			delay = delay < 0 ? wait : Min(delay, wait);
	}

	while ((i = launcher_choose_asked(tried)) >= 0)
	{
		tried[i] = true;
		if (launcher_start_worker(i))
			continue;
		if (!made_room)
			made_room = launcher_make_room(places[i].database, places[i].role);
		waiting = list_append_unique_oid(waiting, places[i].database);
		delay = delay < 0 ? RETRY_DELAY : Min(delay, RETRY_DELAY);
	}

	for (i = 0; i < TS_MAX_DATABASES; i++)
	{
		if (ts_shared->databases[i].state == TS_DB_RUNNING && ts_shared->databases[i].unheard)
		{
			waiting = list_append_unique_oid(waiting, ts_shared->databases[i].oid);
			delay = delay < 0 ? RETRY_DELAY : Min(delay, RETRY_DELAY);
		}
	}
	if (waiting != NIL)
		launcher_complain();
	launcher_tell_waiting(waiting);
	list_free(waiting);
	pfree(tried);
	return delay;
}

/*
 * A launcher that comes after another finds schedulers and workers that the
 * other has started.  It has no handles for them; they tell of their exit by
 * themselves.  What was registered and has not attached yet is asked for anew.
 */
static void
launcher_take_over(void)
{
	for (int i = 0; i < TS_MAX_DATABASES; i++)
	{
		TsDatabase *db = &ts_shared->databases[i];

		SpinLockAcquire(&db->mutex);
		if (db->state == TS_DB_STARTING)
		{
			db->state = TS_DB_WANTED;
			db->start_at = 0;
		}
		SpinLockRelease(&db->mutex);
	}
	for (int i = 0; i < ts_shared->nworkers; i++)
	{
		TsWorker   *worker = &ts_shared->workers[i];
		bool		unattached;

		SpinLockAcquire(&worker->mutex);
		unattached = (worker->state == TS_WORKER_STARTING && worker->proc == NULL);
		SpinLockRelease(&worker->mutex);
		if (unattached)
			shared_free_worker(worker);
	}
}

void
ts_launcher_main(Datum main_arg)
{
	uint32		wait_event;

	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	SetConfigOption("application_name", "taskshed launcher", PGC_USERSET, PGC_S_OVERRIDE);
	wait_event = compat_wait_event("TaskshedLauncherMain");

	scheduler_handles = MemoryContextAllocZero(TopMemoryContext,
											   TS_MAX_DATABASES * sizeof(*scheduler_handles));
	worker_handles = MemoryContextAllocZero(TopMemoryContext,
											ts_shared->nworkers * sizeof(*worker_handles));
	places = MemoryContextAllocZero(TopMemoryContext, ts_shared->nworkers * sizeof(*places));
	before_shmem_exit(launcher_exit, (Datum) 0);
	SpinLockAcquire(&ts_shared->mutex);
	ts_shared->launcher = MyProc;
	SpinLockRelease(&ts_shared->mutex);

	launcher_take_over();
	unprobed = launcher_list_databases();
	pgstat_report_activity(STATE_IDLE, NULL);

	for (;;)
	{
		long		delay;

		ResetLatch(MyLatch);
		QueryCancelPending = false;
		shared_process_interrupts();
		launcher_reap();
		shared_free_idle_databases();
		launcher_probe();
		delay = launcher_start_asked();
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (delay >= 0 ? WL_TIMEOUT : 0),
						 delay, wait_event);
	}
}
