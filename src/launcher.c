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

/* Processes that were started, by their entries in shared memory. */
static BackgroundWorkerHandle **scheduler_handles;
static BackgroundWorkerHandle **worker_handles;

/* Databases that remain to be looked into. */
static List *unprobed = NIL;

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
 * How many processes of ours there are, this one and those on their way too.
 * They are counted in shared memory: an earlier launcher may have started
 * some.
 */
static int
launcher_count_processes(void)
{
	int			n = 1;

	for (int i = 0; i < TS_MAX_DATABASES; i++)
	{
		TsDatabase *db = &ts_shared->databases[i];

		SpinLockAcquire(&db->mutex);
		if (db->state == TS_DB_STARTING || db->state == TS_DB_RUNNING)
			n++;
		SpinLockRelease(&db->mutex);
	}
	for (int i = 0; i < ts_shared->nworkers; i++)
	{
		TsWorker   *worker = &ts_shared->workers[i];

		SpinLockAcquire(&worker->mutex);
		if (worker->state == TS_WORKER_STARTING || worker->state == TS_WORKER_READY)
			n++;
		SpinLockRelease(&worker->mutex);
	}
	return n;
}

/* Is there room for one process more?  If not, says so in the log. */
static bool
launcher_has_room(void)
{
	static TimestampTz complained_at = 0;
	TimestampTz now;

	if (launcher_count_processes() + TS_SLOTS_LEFT_FREE < max_worker_processes)
		return true;
	now = GetCurrentTimestamp();
	if (now - complained_at >= COMPLAINT_INTERVAL)
	{
		complained_at = now;
		ereport(LOG,
				(errmsg("taskshed has no room for another process"),
				 errdetail("It has %d, and leaves %d of max_worker_processes = %d to others.",
						   launcher_count_processes(), TS_SLOTS_LEFT_FREE, max_worker_processes),
				 errhint("Increase max_worker_processes, or lower taskshed.max_workers.")));
	}
	return false;
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

/* Says in the view status that a database waits for a slot, or no longer does. */
static void
launcher_say_no_room(Oid database, bool no_room)
{
	static const char *const message =
	"waiting for a slot of max_worker_processes; increase that setting";
	TsDatabase *db = shared_find_database(database);

	if (db == NULL)
		return;
	if (no_room)
		shared_set_message(db, message);
	else if (strcmp(db->message, message) == 0)
		shared_set_message(db, NULL);
}

/* Starts what was asked for.  Returns when to look again, in ms; -1: never. */
static long
launcher_start_asked(void)
{
	TimestampTz now = GetCurrentTimestamp();
	long		delay = -1;

	for (int i = 0; i < TS_MAX_DATABASES; i++)
	{
		TsDatabase *db = &ts_shared->databases[i];
		bool		start;
		long		wait = -1;

		if (scheduler_handles[i] != NULL)
			continue;
		SpinLockAcquire(&db->mutex);
		start = (db->state == TS_DB_WANTED);
		if (start && db->start_at > now)
		{
			start = false;
			wait = (long) ((db->start_at - now) / 1000 + 1);
		}
		SpinLockRelease(&db->mutex);

		if (start && !launcher_may_serve(db))
			continue;
		if (start)
		{
			if (launcher_has_room())
			{
				SpinLockAcquire(&db->mutex);
				db->state = TS_DB_STARTING;
				SpinLockRelease(&db->mutex);
				scheduler_handles[i] = launcher_start("taskshed scheduler", "ts_scheduler_main",
													  ObjectIdGetDatum(db->oid), 0, db->oid);
			}
			if (scheduler_handles[i] == NULL)
			{
				SpinLockAcquire(&db->mutex);
				db->state = TS_DB_WANTED;
				SpinLockRelease(&db->mutex);
				wait = RETRY_DELAY;
			}
		}
		if (wait >= 0)
			delay = delay < 0 ? wait : Min(delay, wait);
	}

	for (int i = 0; i < ts_shared->nworkers; i++)
	{
		TsWorker   *worker = &ts_shared->workers[i];
		bool		asked;
		uint32		generation;
		Oid			database;

		if (worker_handles[i] != NULL)
			continue;
		SpinLockAcquire(&worker->mutex);
		asked = (worker->state == TS_WORKER_ASKED);
		generation = worker->generation;
		database = worker->database;
		SpinLockRelease(&worker->mutex);
		if (!asked)
			continue;

		if (launcher_has_room())
		{
			SpinLockAcquire(&worker->mutex);
			worker->state = TS_WORKER_STARTING;
			SpinLockRelease(&worker->mutex);
			worker_handles[i] = launcher_start("taskshed worker", "ts_worker_main",
											   Int32GetDatum(i), generation, database);
			if (worker_handles[i] != NULL)
				launcher_say_no_room(database, false);
		}
		if (worker_handles[i] == NULL)
		{
			SpinLockAcquire(&worker->mutex);
			worker->state = TS_WORKER_ASKED;
			SpinLockRelease(&worker->mutex);
			delay = delay < 0 ? RETRY_DELAY : Min(delay, RETRY_DELAY);
			launcher_say_no_room(database, true);
		}
	}
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
