/*-------------------------------------------------------------------------
 *
 * launcher.c
 *		The process that starts schedulers and workers.
 *
 * It is connected to no database.  It acts on what it finds in shared memory:
 * databases that want a scheduler, now or at some time, slots for which a worker
 * has been asked.  Whoever writes that there sets its latch.  Which databases
 * there are, and which of them can have a scheduler, databases.c says.
 *
 * All our processes share the server's max_worker_processes with others.  The
 * launcher leaves two of them to others, always, and waits with what it was
 * asked for until there is room again, which the view status says.
 *
 * Who gets what room there is, fair_share.c says.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
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
#include "utils/timestamp.h"

#include "launcher/launcher.h"

/* How long (ms) to wait before trying again what there was no room for. */
#define RETRY_DELAY			1000

/* Processes that were started, by their entries in shared memory. */
static BackgroundWorkerHandle **scheduler_handles;
static BackgroundWorkerHandle **worker_handles;

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

/* Start one of our processes.  Return NULL if the server has no slot for it. */
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

/*
 * Free the slot of a worker that was started and has not attached, nor will:
 * most likely the server could not fork.
 */
static void
launcher_free_unattached(TsWorker *worker)
{
	bool		unattached;

	SpinLockAcquire(&worker->mutex);
	unattached = (worker->state == TS_WORKER_STARTING && worker->proc == NULL);
	if (unattached)
		worker->shortage = true;
	SpinLockRelease(&worker->mutex);
	if (unattached)
		slot_free(worker);
}

/* Forget the processes that have ended, and what they left behind. */
static void
launcher_reap(void)
{
	TimestampTz now = GetCurrentTimestamp();
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
			database_set_state(db, TS_DB_WANTED);
			db->start_at = now + USECS_PER_SEC;
		}
		SpinLockRelease(&db->mutex);
	}

	for (int i = 0; i < ts_shared->nslots; i++)
	{
		if (worker_handles[i] == NULL ||
			GetBackgroundWorkerPid(worker_handles[i], &pid) != BGWH_STOPPED)
			continue;
		pfree(worker_handles[i]);
		worker_handles[i] = NULL;
		launcher_free_unattached(&ts_shared->workers[i]);
	}
}

/* Say in the view status which databases wait for a slot, and which do not. */
static void
launcher_tell_waiting(List *waiting)
{
	static const char *const message =
	"waiting for a slot of max_worker_processes; increase that setting";

	for (int i = 0; i < TS_MAX_DATABASES; i++)
	{
		TsDatabase *db = &ts_shared->databases[i];
		Oid			database = database_oid(db);

		if (!OidIsValid(database))
			continue;
		if (list_member_oid(waiting, database))
			database_set_message(db, message);
		else if (database_has_message(db, message))
			database_set_message(db, NULL);
	}
}

/* A database whose scheduler is to be started now, and since when it has been. */
typedef struct Wanted
{
	int			i;
	TimestampTz since;
} Wanted;

/* Compare, for qsort: who has waited longest comes first. */
static int
launcher_cmp_wanted(const void *a, const void *b)
{
	TimestampTz x = ((const Wanted *) a)->since;
	TimestampTz y = ((const Wanted *) b)->since;

	return x == y ? 0 : x < y ? -1 : 1;
}

/*
 * List the databases whose schedulers are to be started now, who has waited
 * longest first, and find out when others are, in ms; -1: none.
 */
static int
launcher_list_wanted(Wanted *wanted, long *delay)
{
	TimestampTz now = GetCurrentTimestamp();
	int			n = 0;

	*delay = -1;
	for (int i = 0; i < TS_MAX_DATABASES; i++)
	{
		TsDatabase *db = &ts_shared->databases[i];
		TimestampTz longest = PROCESS_MAX_SLEEP * INT64CONST(1000);
		bool		later = false;
		bool		was_asleep;
		TimestampTz start_at;

		if (scheduler_handles[i] != NULL)
			continue;
		SpinLockAcquire(&db->mutex);
		start_at = db->start_at;
		was_asleep = (db->state == TS_DB_ASLEEP);
		if (db->holds == 0 && (db->state == TS_DB_WANTED || db->state == TS_DB_ASLEEP))
		{
			later = (start_at > now);
			/* the clock may have been set back: none waits longer than this */
			if (db->state == TS_DB_WANTED && start_at > now + PROCESS_MAX_BACKOFF)
				later = false;
			if (!later)
			{
				if (was_asleep)
					database_set_state(db, TS_DB_WANTED);
				wanted[n].i = i;
				wanted[n++].since = start_at;
			}
		}
		was_asleep = was_asleep && db->state == TS_DB_WANTED;
		SpinLockRelease(&db->mutex);
		if (was_asleep)
			ts_debug(DEBUG1, "database %u has slept for long enough", db->oid);
		if (later)
		{
			long		wait = (long) (Min(start_at - now, longest) / 1000 + 1);

			*delay = *delay < 0 ? wait : Min(*delay, wait);
		}
	}
	qsort(wanted, n, sizeof(Wanted), launcher_cmp_wanted);
	return n;
}

/*
 * Start a scheduler for a database that wants one.  Return false if there is no
 * room.
 */
static bool
launcher_start_scheduler(int i)
{
	TsDatabase *db = &ts_shared->databases[i];
	Oid			database = db->oid;
	bool		wanted;

	if (!databases_may_serve(db))
		return true;
	if (!fair_share_room_for_scheduler())
		return false;
	SpinLockAcquire(&db->mutex);
	wanted = (db->state == TS_DB_WANTED && db->holds == 0);
	if (wanted)
		database_set_state(db, TS_DB_STARTING);
	SpinLockRelease(&db->mutex);
	if (!wanted)
		return true;
	databases_stop_clearing(i); /* it was opened again */
	scheduler_handles[i] = launcher_start("taskshed scheduler", "ts_scheduler_main",
										  ObjectIdGetDatum(database), 0, database);
	if (scheduler_handles[i] != NULL)
	{
		ts_debug(DEBUG1, "launcher starts the scheduler of database %u", database);
		fair_share_count_scheduler(database);
		return true;
	}
	SpinLockAcquire(&db->mutex);
	if (db->state == TS_DB_STARTING)	/* else somebody holds the database */
		database_set_state(db, TS_DB_WANTED);
	SpinLockRelease(&db->mutex);
	fair_share_set_full();
	return false;
}

/*
 * Start the worker for which a slot was asked, if it still is.  Return false if
 * there is no room.
 */
static bool
launcher_start_worker(int i)
{
	TsWorker   *worker = &ts_shared->workers[i];
	const SlotView *view = fair_share_get(i);
	TimestampTz now = GetCurrentTimestamp();
	bool		asked;

	if (!fair_share_room_for_worker(view->database))
		return false;
	SpinLockAcquire(&worker->mutex);
	asked = (worker->state == TS_WORKER_ASKED && worker->generation == view->generation);
	if (asked)
		worker->state = TS_WORKER_STARTING;
	SpinLockRelease(&worker->mutex);
	if (!asked)
	{
		fair_share_drop(i);
		return true;
	}
	worker_handles[i] = launcher_start("taskshed worker", "ts_worker_main", Int32GetDatum(i),
									   view->generation, view->database);
	SpinLockAcquire(&worker->mutex);
	if (worker_handles[i] == NULL)
		worker->state = TS_WORKER_ASKED;
	else
		worker->since = now;
	SpinLockRelease(&worker->mutex);
	if (worker_handles[i] == NULL)
	{
		fair_share_set_full();
		return false;
	}
	ts_debug(DEBUG1, "launcher starts a worker of role %u in database %u", view->role, view->database);
	fair_share_count_worker(i);
	return true;
}

/* Add the databases that want a worker and find no slot for it. */
static List *
launcher_add_unheard(List *waiting)
{
	for (int i = 0; i < TS_MAX_DATABASES; i++)
	{
		TsDatabase *db = &ts_shared->databases[i];
		Oid			database;
		bool		unheard;

		SpinLockAcquire(&db->mutex);
		database = db->oid;
		unheard = (db->state == TS_DB_RUNNING && db->unheard);
		SpinLockRelease(&db->mutex);
		if (unheard)
			waiting = list_append_unique_oid(waiting, database);
	}
	return waiting;
}

/* Start what was asked for.  Return when to look again, in ms; -1: never. */
static long
launcher_start_asked(void)
{
	List	   *waiting = NIL;
	long		delay;
	TimestampTz now = GetCurrentTimestamp();
	Wanted	   *wanted = palloc(TS_MAX_DATABASES * sizeof(Wanted));
	int			nwanted;
	bool		crowded = false;
	bool		made_room = false;
	bool	   *tried = palloc(ts_shared->nslots * sizeof(bool));
	int			i;

	fair_share_look();
	for (i = 0; i < ts_shared->nslots; i++)
		tried[i] = (worker_handles[i] != NULL);

	/* schedulers */
	nwanted = launcher_list_wanted(wanted, &delay);
	for (i = 0; i < nwanted; i++)
	{
		Oid			database = ts_shared->databases[wanted[i].i].oid;

		if (launcher_start_scheduler(wanted[i].i))
			continue;
		fair_share_make_room_for_scheduler(database);
		crowded = true;
		delay = delay < 0 ? RETRY_DELAY : Min(delay, RETRY_DELAY);
		/* (it is no news that one has to wait for another to leave) */
		if (now - wanted[i].since >= RETRY_DELAY * INT64CONST(1000))
			waiting = lappend_oid(waiting, database);
	}
	pfree(wanted);
	SpinLockAcquire(&ts_shared->mutex);
	ts_shared->crowded = crowded;
	SpinLockRelease(&ts_shared->mutex);

	/* workers */
	while ((i = fair_share_choose_asked(tried)) >= 0)
	{
		tried[i] = true;
		if (launcher_start_worker(i))
			continue;
		if (!made_room)
			made_room = fair_share_make_room(fair_share_get(i)->database, fair_share_get(i)->role);
		waiting = list_append_unique_oid(waiting, fair_share_get(i)->database);
	}

	/* what there was no room for is tried again */
	waiting = launcher_add_unheard(waiting);
	if (waiting != NIL)
	{
		delay = delay < 0 ? RETRY_DELAY : Min(delay, RETRY_DELAY);
		fair_share_complain();
	}
	launcher_tell_waiting(waiting);
	list_free(waiting);
	pfree(tried);
	return delay;
}

/*
 * Take over from an earlier launcher.  There may be schedulers and workers that
 * it has started.  This one has no handles for them; they tell of their exit by
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
			database_set_state(db, TS_DB_WANTED);
		SpinLockRelease(&db->mutex);
	}
	for (int i = 0; i < ts_shared->nslots; i++)
		launcher_free_unattached(&ts_shared->workers[i]);
}

/*
 * Serve interrupts.  If a reload has changed what matters to schedulers, those
 * that are away come and look what it means in their databases.
 */
static void
launcher_process_interrupts(void)
{
	bool		enabled = ts_enabled;
	bool		allow_superuser_tasks = ts_allow_superuser_tasks;
	int			failed_retention = ts_failed_retention;
	int			history_retention = ts_history_retention;
	int			history_max_size = ts_history_max_size;
	int			idle_timeout = ts_scheduler_idle_timeout;

	process_interrupts();
	if (enabled == ts_enabled && allow_superuser_tasks == ts_allow_superuser_tasks &&
		failed_retention == ts_failed_retention && history_retention == ts_history_retention &&
		history_max_size == ts_history_max_size && idle_timeout == ts_scheduler_idle_timeout)
		return;
	/* (one that falls asleep now, and was not told yet, stays and reads them) */
	pg_atomic_fetch_add_u32(&ts_shared->reloads, 1);
	for (int i = 0; i < TS_MAX_DATABASES; i++)
		database_end_sleep(&ts_shared->databases[i]);
}

/*
 * Mend what is known of times, since the clock was set back: what was to be
 * done at a time of day that is far off now is done at once, and nobody is
 * younger than he was.
 */
static void
launcher_mend_times(void)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < TS_MAX_DATABASES; i++)
	{
		TsDatabase *db = &ts_shared->databases[i];

		SpinLockAcquire(&db->mutex);
		if (db->state == TS_DB_WANTED)
			db->start_at = Min(db->start_at, now);
		db->since = Min(db->since, now);
		SpinLockRelease(&db->mutex);
	}
	for (int i = 0; i < ts_shared->nslots; i++)
	{
		TsWorker   *worker = &ts_shared->workers[i];

		SpinLockAcquire(&worker->mutex);
		worker->since = Min(worker->since, now);
		SpinLockRelease(&worker->mutex);
	}
	fair_share_start_anew();
}

/*
 * Flush what idle workers have committed without waiting for the disk.  The server's
 * own walwriter would do it some hundreds of milliseconds later; a worker that did it
 * itself would keep its next task waiting.
 */
static void
launcher_flush(void)
{
	XLogRecPtr	asked = shared_flush_asked();

	/* (nothing is asked for in recovery) */
	if (!XLogRecPtrIsInvalid(asked) && XLogNeedsFlush(asked))
		XLogFlush(asked);
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
											ts_shared->nslots * sizeof(*worker_handles));
	databases_init();
	fair_share_init();
	before_shmem_exit(launcher_exit, (Datum) 0);
	SpinLockAcquire(&ts_shared->mutex);
	ts_shared->launcher = MyProc;
	SpinLockRelease(&ts_shared->mutex);

	launcher_take_over();
	pgstat_report_activity(STATE_IDLE, NULL);
	ts_debug(DEBUG1, "launcher has come");

	for (;;)
	{
		long		delay;
		long		probe_delay;

		ResetLatch(MyLatch);
		QueryCancelPending = false;
		launcher_process_interrupts();
		launcher_flush();
		if (process_clock_was_set_back())
			launcher_mend_times();
		launcher_reap();
		database_free_idle();
		probe_delay = databases_probe();
		databases_clear_closed();
		delay = launcher_start_asked();
		if (probe_delay >= 0)
			delay = delay < 0 ? probe_delay : Min(delay, probe_delay);
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (delay >= 0 ? WL_TIMEOUT : 0),
						 delay, wait_event);
	}
}
