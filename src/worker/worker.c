/*-------------------------------------------------------------------------
 *
 * worker.c
 *		The process that runs the tasks of one role in one database.
 *
 * A worker is connected as the role, so there is nothing that a callback
 * could reset itself to.  It takes tasks from its slot (handed.c), runs them, and
 * waits for the next, and for its time.  The worker exits when it
 * has had nothing to do for taskshed.worker_idle_timeout, or when the scheduler
 * wants its place; and when it is worn, because what callbacks leave in a
 * process and the server cannot put back is bounded by the process's end.  What
 * it has been handed and not begun goes to others then.
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
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "worker/worker.h"

/* There is time for a rehearsal if the first task is so far off (us). */
#define REHEARSAL_TIME	20000

/*
 * When it has been idle for so long (ms), a worker does what it has put off, if that
 * was not done this long ago.
 */
#define SETTLE_AFTER	10
#define SETTLE_INTERVAL	100

/* A worker that has had no task yet waits for one at least this long (ms). */
#define FIRST_TASK	1000

/*
 * A worker is worn after so many runs: a byte that each of them left behind
 * would be a MB by then, and a new process is some 10 ms of work.
 */
#define WORN_RUNS	1000000

/*
 * Or after this long (us): what is not measured below, as the memory that a
 * procedural language's interpreter has taken, or a connection that a callback
 * has left open, is there for so long at most.
 */
#define WORN_AGE	USECS_PER_HOUR

/*
 * Or when its memory contexts have grown by so many bytes since its first run,
 * which has filled the caches with what every run needs.  The caches of a
 * large schema may come to that as well; then they are filled once more.
 */
#define WORN_GROWTH	((Size) 64 * 1024 * 1024)

/* Its memory is looked at after so many runs, or if this long (us) has passed. */
#define LOOK_RUNS		100
#define LOOK_INTERVAL	USECS_PER_SEC

/* Sets the latch when a task that was handed out ahead of its time is due. */
static TimeoutId alarm_timeout;

/*
 * Wakes the scheduler when a run takes so long (ms) that tasks behind it, whose times
 * are to come, should go to others: it counts as long by then (TS_LONG_RUN).
 */
#define HOLDUP_TIME		3
static TimeoutId holdup_timeout;

/*
 * Give the slot back when the process exits.  This comes after its transaction has
 * been rolled back, since it is registered before the connection's own callbacks.
 */
static void
worker_exit(int code, Datum arg)
{
	TsWorker   *worker = ts_my_worker;

	/* a run in progress stays noted until the scheduler has written it down */
	ts_my_worker = NULL;
	SpinLockAcquire(&worker->mutex);
	worker->shortage = shortage_ends_process(code);
	SpinLockRelease(&worker->mutex);
	slot_free(worker);
	database_release(ts_my_database);
	shared_wake_launcher();
}

/* Return whether somebody has decided that this process is to leave. */
static bool
worker_must_retire(void)
{
	TsWorker   *worker = ts_my_worker;
	bool		retire;

	SpinLockAcquire(&worker->mutex);
	retire = worker->retire;
	SpinLockRelease(&worker->mutex);
	return retire;
}

pg_noreturn static void worker_quit(const char *why);

/* Leave the process; why is for the log. */
static void
worker_quit(const char *why)
{
	ts_debug(DEBUG1, "worker leaves: %s", why);
	shared_ask_flush(XactLastCommitEnd);
	proc_exit(0);
}

/* Take the slot that the launcher has started this process for. */
static void
worker_attach(int slot, uint32 generation)
{
	TsWorker   *worker = &ts_shared->workers[slot];
	Oid			database;
	bool		mine;

	SpinLockAcquire(&worker->mutex);
	database = worker->database;
	SpinLockRelease(&worker->mutex);
	ts_my_database = database_try_reserve(database);
	if (ts_my_database == NULL)
		worker_quit("its scheduler has given up, and others have come");

	SpinLockAcquire(&worker->mutex);
	mine = (worker->state == TS_WORKER_STARTING && worker->generation == generation &&
			worker->database == database);
	if (mine)
	{
		worker->proc = MyProc;
		worker->pid = MyProcPid;
	}
	SpinLockRelease(&worker->mutex);
	if (!mine)
	{
		database_release(ts_my_database);
		worker_quit("nobody waits for it any more");
	}
	ts_my_worker = worker;
	before_shmem_exit(worker_exit, (Datum) 0);
	shortage_watch();

	/* whoever holds the database may not have seen us, or has sent us away */
	if (database_is_on_hold(ts_my_database) || worker_must_retire())
		worker_quit("it was sent away on its way");
}

/*
 * Return whether this process has been in use for long enough; after each run, or some
 * that have shared a transaction.
 */
static bool
worker_is_worn(int nruns)
{
	static int	runs = 0;
	static int	looked_after = 0;
	static TimestampTz first_at;
	static TimestampTz looked_at;
	static Size memory;
	TimestampTz now = ts_my_worker->running_since;	/* of the run: close
													 * enough */

	runs += nruns;
	if (runs == nruns)
	{
		first_at = looked_at = now;
		memory = MemoryContextMemAllocated(TopMemoryContext, true);
		return false;
	}
	/* (the clock may have been set back) */
	first_at = Min(first_at, now);
	looked_at = Min(looked_at, now);
	if (runs >= WORN_RUNS || now - first_at >= WORN_AGE)
		return true;
	if (runs - looked_after < LOOK_RUNS && now - looked_at < LOOK_INTERVAL)
		return false;
	looked_after = runs;
	looked_at = now;
	return MemoryContextMemAllocated(TopMemoryContext, true) > memory + WORN_GROWTH;
}

/* Decide to leave, unless the scheduler has just handed out a task. */
static bool
worker_retire_if_idle(void)
{
	TsWorker   *worker = ts_my_worker;
	bool		retire;

	SpinLockAcquire(&worker->mutex);
	if (worker->handed_tail == worker->handed_head)
		worker->retire = true;
	retire = worker->retire;
	SpinLockRelease(&worker->mutex);
	return retire;
}

/* Serve interrupts between two runs. */
static void
worker_process_interrupts(void)
{
	bool		reload = ConfigReloadPending;

	process_interrupts();
	if (reload)
		session_apply_settings();
}

/* Add a run to the figures of the view status. */
static void
worker_count(RunStatus status)
{
	TimestampTz now = status != RUN_SUCCEEDED ? GetCurrentTimestamp() : 0;

	if (status == RUN_NONE || status == RUN_MISSED)
		return;
	SpinLockAcquire(&ts_my_database->mutex);
	if (status == RUN_SUCCEEDED)
		ts_my_database->counts.runs_ok++;
	else
	{
		ts_my_database->counts.runs_failed++;
		ts_my_database->counts.last_failure_at = now;
	}
	SpinLockRelease(&ts_my_database->mutex);
}

/*
 * Run tasks until none is left that is due.  Return when the next one will
 * be; DT_NOEND if there is none.
 */
static TimestampTz
worker_run_handed(MemoryContext context)
{
	static Batch batch;
	static TsReport reports[TS_MAX_TASKS_PER_COMMIT + 1];
	TsHanded	task;
	TimestampTz wait_for;
	bool		ahead;
	bool		more = handed_next(NULL, 0, &task, &wait_for, &ahead);

	while (more)
	{
		int			nreports = 1;

		/* run it, and perhaps others with it */
		batch.extending = false;
		batch.ntaken = batch.n = 0;
		batch.run = NULL;
		batch.callback = NULL;
		MemoryContextSwitchTo(context);
		if (ahead)
			enable_timeout_after(holdup_timeout, HOLDUP_TIME);
		worker_count(run_task(&task, &reports[0], ts_tasks_per_commit > 1 ? &batch : NULL));
		if (ahead)
			disable_timeout(holdup_timeout, false);
		for (int i = 0; i < batch.ntaken; i++)
			worker_count(batch.statuses[i]);
		MemoryContextSwitchTo(context);
		MemoryContextReset(context);
		pgstat_report_stat(false);
		if (worker_is_worn(1 + batch.n))
		{
			ts_debug(DEBUG1, "worker is worn");
			slot_retire();
		}

		/* leave the reports, and take the next */
		for (int i = 0; i < batch.n; i++)
			reports[nreports++] = batch.reports[i];
		more = handed_next(reports, nreports, &task, &wait_for, &ahead);
		QueryCancelPending = false; /* meant for the run that is over */
		worker_process_interrupts();
		if (!more)
			pgstat_report_activity(STATE_IDLE, NULL);
	}
	return wait_for;
}

static void
worker_alarm_handler(void)
{
	SetLatch(MyLatch);
}

/* Return how long (ms) to wait before a worker does what it has put off. */
static int
worker_settle_delay(TimestampTz settled_at)
{
	TimestampTz now = GetCurrentTimestamp();

	if (settled_at > now)		/* the clock was set back */
		return SETTLE_AFTER;
	return Max(SETTLE_AFTER, SETTLE_INTERVAL - (now - settled_at) / 1000);
}

/*
 * Do what can wait until there is nothing else to do: have the last commit flushed,
 * the statistics reported, and the scheduler look at the reports.
 */
static void
worker_settle(void)
{
	if (XLogNeedsFlush(XactLastCommitEnd))
		shared_ask_flush(XactLastCommitEnd);
	pgstat_report_stat(true);
	if (handed_has_reports())
		database_wake_scheduler(ts_my_database);
}

/* Wait for the next task, and for its time. */
static void
worker_wait(TimestampTz wait_for)
{
	static uint32 wait_event = 0;
	static uint32 settled_serial = 0;
	static TimestampTz settled_at = 0;
	int			timeout = ts_worker_idle_timeout;
	bool		settle = (ts_my_worker->serial != settled_serial && wait_for == DT_NOEND);
	int			rc;

	/* the task for which it was started is on its way */
	if (ts_my_worker->serial == 0)
		timeout = Max(timeout, FIRST_TASK);

	if (wait_event == 0)
		wait_event = compat_wait_event("TaskshedWorkerMain");
	if (wait_for != DT_NOEND)
	{
		enable_timeout_at(alarm_timeout, wait_for);
		timeout = FIRST_TASK;	/* should the clock be set while it waits */
	}
	if (settle)
		timeout = Min(timeout, worker_settle_delay(settled_at));
	rc = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
				   timeout, wait_event);
	if (wait_for != DT_NOEND)
		disable_timeout(alarm_timeout, false);
	ResetLatch(MyLatch);

	/* a cancel that came between two runs is nobody's */
	QueryCancelPending = false;
	worker_process_interrupts();
	if ((rc & WL_TIMEOUT) && settle)
	{
		worker_settle();
		settled_serial = ts_my_worker->serial;
		settled_at = GetCurrentTimestamp();
	}
	else if ((rc & WL_TIMEOUT) && worker_retire_if_idle())
		worker_quit("it has had nothing to do for a while");
}

/* Prepare for the task for which this process was started, if there is time. */
static void
worker_rehearse(MemoryContext context)
{
	MemoryContext old;
	int64		id;
	TimestampTz run_at;

	SpinLockAcquire(&ts_my_worker->mutex);
	id = ts_my_worker->first_id;
	run_at = ts_my_worker->first_run_at;
	SpinLockRelease(&ts_my_worker->mutex);

	if (run_at - GetCurrentTimestamp() < REHEARSAL_TIME)
		return;
	old = MemoryContextSwitchTo(context);
	rehearse(id);
	MemoryContextSwitchTo(old);
	MemoryContextReset(context);
}

void
ts_worker_main(Datum main_arg)
{
	uint32		generation;
	Oid			database;
	Oid			role;
	MemoryContext context;

	memcpy(&generation, MyBgworkerEntry->bgw_extra, sizeof(generation));
	worker_attach(DatumGetInt32(main_arg), generation);
	database = ts_my_worker->database;
	role = ts_my_worker->role;

	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	compat_connect_as(database, role);

	/* what keeps sessions of the role in bounds is to do so here */
	process_session_preload_libraries();
	session_start();
	roles_watch();

	/* the role may have changed since the scheduler looked at it */
	if ((strcmp(GetConfigOption("is_superuser", false, false), "on") == 0) !=
		ts_my_worker->is_superuser)
		worker_quit("its role has become a superuser, or is none any more");
	alarm_lock_init();
	transaction_init();
	stop_init();
	batch_init();
	alarm_timeout = RegisterTimeout(USER_TIMEOUT, worker_alarm_handler);
	holdup_timeout = RegisterTimeout(USER_TIMEOUT, slot_wake_scheduler_from_handler);
	context = AllocSetContextCreate(TopMemoryContext, "taskshed run", ALLOCSET_DEFAULT_SIZES);
	worker_rehearse(context);
	pgstat_report_activity(STATE_IDLE, NULL);

	SpinLockAcquire(&ts_my_worker->mutex);
	ts_my_worker->state = TS_WORKER_READY;
	SpinLockRelease(&ts_my_worker->mutex);
	database_wake_scheduler(ts_my_database);
	ts_debug(DEBUG1, "worker has come for role %u", role);

	while (!worker_must_retire())
	{
		TimestampTz wait_for = worker_run_handed(context);

		if (worker_must_retire())
			break;
		worker_wait(wait_for);
	}
	worker_quit("it was sent away, or cannot go on");
}
