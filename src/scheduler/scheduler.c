/*-------------------------------------------------------------------------
 *
 * scheduler.c
 *		The process that hands the due tasks of one database to workers.
 *
 * There is one for each database with the extension.  It reads the queue and
 * runs no user code.  It sleeps until just before the next task is due, or
 * until its latch is set: by a commit that brings an earlier task, or by a
 * worker that has something to say.
 *
 * Each round goes in this order, which keeps wakeups from being lost:
 *
 *		reset the latch
 *		collect the workers' reports, take the notes that commits have left
 *		then take a snapshot and read what these ask for; have tasks run once
 *		more that request_run() was called for, which leaves notes again
 *		hand out what is due, or will be in a moment
 *		publish the time of the next round as the alarm, unless notes have
 *		come in meanwhile, in one step with looking for them
 *		sleep
 *
 * Instead of sleeping for long it leaves, and has the launcher start another in
 * time; idle_exit.c says when.
 *
 * A commit leaves its notes after its rows have become visible, so whoever
 * has taken a note finds the row; and a commit that finds the alarm at
 * DT_NOBEGIN, where it is while the scheduler is awake, leaves its notes to
 * be found before it sleeps.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
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
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "scheduler/scheduler.h"

/* The failed tasks are counted at most this often (us). */
#define COUNT_INTERVAL		(30 * USECS_PER_SEC)

/* The tasks that are due and waiting are counted at most this often (us). */
#define DUE_INTERVAL		(100 * INT64CONST(1000))

static TsDatabase *my_db = NULL;
static TimestampTz started_at;
static bool well_started = false;	/* has been through one round */
static bool not_wanted = false; /* no extension, or no database to be in */
static bool asleep = false;		/* leaves what it is to come back for */
static bool failed_uncounted = true;	/* their number may have changed */
static HomeState home = HOME_EMPTY;
static TimeoutId alarm_timeout;

/* Leave the database's entry as the launcher needs to find it. */
static void
scheduler_exit(int code, Datum arg)
{
	TimestampTz now = GetCurrentTimestamp();

	SpinLockAcquire(&my_db->mutex);
	if (my_db->scheduler != MyProc)
	{
		/* the next one, of a new launcher, has not waited for our end */
		SpinLockRelease(&my_db->mutex);
		return;
	}

	/* we are not there any more */
	my_db->scheduler = NULL;
	my_db->scheduler_pid = 0;
	my_db->alarm = DT_NOBEGIN;
	my_db->resting = false;
	if (!asleep)
	{
		my_db->due = 0;
		my_db->oldest_due = DT_NOEND;
		my_db->next_wakeup = DT_NOEND;
	}

	/* when is another one wanted? */
	if (asleep)
		;						/* it is known when the next one is wanted */
	else if (not_wanted && !my_db->wanted_again)
		database_set_state(my_db, TS_DB_IDLE);
	else if (not_wanted)
	{
		/* a commit since we looked: the extension may be there now, or we may */
		database_set_state(my_db, TS_DB_WANTED);
		my_db->start_at = now;
	}
	else
	{
		database_set_state(my_db, TS_DB_WANTED);
		if (well_started || my_db->holds > 0 || my_db->outdated)
		{
			/* whatever ended it, the next is likely to do better */
			my_db->bad_starts = 0;
			my_db->start_at = started_at > now ? now : Max(now, started_at + USECS_PER_SEC);
		}
		else if (shortage_ends_process(code))
			my_db->start_at = now + USECS_PER_SEC;
		else
			my_db->start_at = now + process_backoff(my_db->bad_starts++);
	}
	SpinLockRelease(&my_db->mutex);
	shared_wake_launcher();
}

pg_noreturn static void scheduler_quit(const char *why);

/* Leave the process; why is for the log. */
static void
scheduler_quit(const char *why)
{
	ts_debug(DEBUG1, "scheduler leaves: %s", why);
	proc_exit(0);
}

/* Become the scheduler of the database that the launcher has chosen. */
static void
scheduler_attach(Oid database)
{
	bool		mine = false;

	started_at = GetCurrentTimestamp();
	my_db = database_find(database);
	if (my_db == NULL)
		scheduler_quit("nobody needs it any more");
	SpinLockAcquire(&my_db->mutex);
	if (my_db->oid == database && my_db->state == TS_DB_STARTING && my_db->holds > 0)
	{
		/* the launcher tries again when nobody holds it any more */
		database_set_state(my_db, TS_DB_WANTED);
	}
	else if (my_db->oid == database && my_db->state == TS_DB_STARTING)
	{
		mine = true;
		database_set_state(my_db, TS_DB_RUNNING);
		my_db->scheduler = MyProc;
		my_db->scheduler_pid = MyProcPid;
		my_db->since = started_at;
		my_db->wanted_again = false;
		my_db->outdated = false;
		my_db->give_way = TS_STAY;
		my_db->unheard = false;
		my_db->resting = false;
		my_db->locked_out = false;
		my_db->stopped = false;
		my_db->alarm = DT_NOBEGIN;
	}
	SpinLockRelease(&my_db->mutex);
	if (!mine)
		scheduler_quit("the database is on hold, or has one");
	before_shmem_exit(scheduler_exit, (Datum) 0);
	shortage_watch();
}

/*
 * Leave a database that has become a template, or was closed, while this
 * process was on its way: the launcher may have looked before that.  (The
 * server would have refused the connection with an error, as if something was
 * wrong.)
 */
static void
scheduler_check_database(Oid database)
{
	HeapTuple	tuple;
	Form_pg_database form;

	StartTransactionCommand();
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for database %u", database);
	form = (Form_pg_database) GETSTRUCT(tuple);
	not_wanted = (form->datistemplate || !form->datallowconn);
	ts_debug(DEBUG1, "scheduler has come to database \"%s\" with OID %u",
			 NameStr(form->datname), database);
	ReleaseSysCache(tuple);
	CommitTransactionCommand();
	if (not_wanted)
		scheduler_quit("the database is a template, or closed");
}

/* Wake up: it is time for the next round. */
static void
scheduler_alarm_handler(void)
{
	SetLatch(MyLatch);
}

/*
 * Return whether it is time to count the failed tasks again.  It is not while
 * nothing happens, and not all the time when much does.
 */
static bool
scheduler_must_count_failed(bool changed)
{
	static TimestampTz counted_at = 0;
	static int64 runs_failed = 0;
	TimestampTz now = GetCurrentTimestamp();
	int64		runs_failed_now;

	SpinLockAcquire(&my_db->mutex);
	runs_failed_now = my_db->counts.runs_failed;
	SpinLockRelease(&my_db->mutex);
	failed_uncounted = failed_uncounted || changed || runs_failed_now != runs_failed;
	if (!failed_uncounted || now - counted_at < COUNT_INTERVAL)
		return false;
	counted_at = now;
	runs_failed = runs_failed_now;
	return true;
}

/* Find out whether tasks are held; say so in the log and in the view status. */
static void
scheduler_look_home(Store *store)
{
	static bool looked = false;
	bool		was_held = home_is_held(home);

	home = copies_state(store, NULL);
	if (looked && home_is_held(home) == was_held)
		return;
	looked = true;
	if (!home_is_held(home))
	{
		database_set_message(my_db, NULL);	/* a predecessor's, too */
		return;
	}
	database_set_message(my_db, "tasks came with a copy of a database; taskshed.activate() lets them run");
	ereport(LOG,
			(errmsg("tasks of database \"%s\" are held, because it is a copy",
					get_database_name(MyDatabaseId)),
			 errdetail_internal("%s", copies_detail(home)),
			 errhint("They run when its owner has called taskshed.activate().")));
}

/* Pass on those of the notes that say what was asked for, and leave the others. */
static void
scheduler_pass_requests(TsNote *notes, int *n)
{
	int			left = 0;

	for (int i = 0; i < *n; i++)
	{
		if (notes[i].request)
			asked_note(notes[i].id);
		else
			notes[left++] = notes[i];
	}
	*n = left;
}

/*
 * Take all notes; return the time from which the queue must be read again.
 * Leave the process if its settings are out of date.
 */
static TimestampTz
scheduler_take_notes(TsNote *notes, int *n)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz reread_from;
	bool		outdated;

	*n = 0;
	SpinLockAcquire(&my_db->mutex);
	outdated = my_db->outdated;
	my_db->alarm = DT_NOBEGIN;
	my_db->resting = false;
	if (my_db->noted)
		my_db->worked_at = now;
	my_db->noted = false;
	my_db->wanted_again = false;
	while (my_db->notes_head != my_db->notes_tail)
		notes[(*n)++] = my_db->notes[my_db->notes_head++ % TS_NOTES];
	reread_from = my_db->reread_from;
	my_db->reread_from = DT_NOEND;
	SpinLockRelease(&my_db->mutex);
	if (outdated)
		scheduler_quit("settings of the database have changed");
	scheduler_pass_requests(notes, n);
	if (reread_from == DT_NOBEGIN)
		asked_note_all();
	if (*n > 0)
		ts_debug(DEBUG2, "scheduler takes %d notes", *n);
	if (reread_from != DT_NOEND)
		ts_debug(DEBUG2, "scheduler reads the queue again from %s", timestamptz_to_str(reread_from));
	return reread_from;
}

/*
 * Leave the process, since the extension is gone, or cannot be worked with.
 * Say that once, in the log and in the view status; a change of the extension
 * or of its tables has another scheduler look.
 */
static void
scheduler_give_up(void)
{
	StoreState	state = store_state();
	const char *message = state != STORE_OTHER_VERSION ?
	"tables of extension taskshed are not as it has made them" : store_version_mismatch();

	if (state != STORE_ABSENT)
	{
		if (!database_has_message(my_db, message))
			store_report(LOG, state);
		database_set_message(my_db, message);
		SpinLockAcquire(&my_db->mutex);
		my_db->stopped = true;
		SpinLockRelease(&my_db->mutex);
	}
	worker_pool_dismiss();
	scheduler_quit(state == STORE_ABSENT ? "there is no extension" : message);
}

/*
 * Read from the tables what notes and reports ask for.  Leave the process if
 * the extension is gone.
 */
static void
scheduler_read(const TsNote *notes, int n, TimestampTz reread_from, bool count_failed)
{
	int64		failed = -1;
	Store	   *store;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetLatestSnapshot());
	store = store_try_open(AccessShareLock);
	not_wanted = (store == NULL);
	if (!not_wanted)
	{
		Snapshot	snapshot = GetActiveSnapshot();

		scheduler_look_home(store);
		if (reread_from != DT_NOEND)
			lookahead_reread(store, snapshot, reread_from);
		for (int i = 0; i < n; i++)
			lookahead_note(store, &notes[i]);
		lookahead_read(store, snapshot);
		if (count_failed)
			failed = queue_count_failed(store, snapshot, NULL);
		store_close(store, AccessShareLock);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(true);
	if (not_wanted)
		scheduler_give_up();
	if (failed >= 0)
	{
		SpinLockAcquire(&my_db->mutex);
		my_db->failed = failed;
		SpinLockRelease(&my_db->mutex);
		failed_uncounted = false;
		maintenance_mention_failed(failed);
	}
}

/*
 * Publish the figures for the view status, and the time of the next round.
 * Return false if there are notes again, so that this is no time to sleep.
 */
static bool
scheduler_publish(TimestampTz now, bool backlog, bool hungry, TimestampTz wake)
{
	static int	due = 0;
	static TimestampTz oldest_due = DT_NOEND;
	static TimestampTz counted_at = 0;
	bool		sleep;

	/* counting takes longer than a round of a busy scheduler may */
	if (!backlog)
	{
		due = 0;
		oldest_due = DT_NOEND;
	}
	else if (due == 0 || now - counted_at >= DUE_INTERVAL)
	{
		due = lookahead_count_due(now, &oldest_due);
		counted_at = now;
	}

	SpinLockAcquire(&my_db->mutex);
	my_db->disabled = !ts_enabled;
	my_db->held = home_is_held(home);
	my_db->due = due;
	my_db->oldest_due = oldest_due;
	my_db->next_wakeup = wake;
	sleep = (my_db->notes_head == my_db->notes_tail && my_db->reread_from == DT_NOEND);
	if (sleep)
	{
		my_db->alarm = wake;
		my_db->hungry = hungry;
		my_db->expects_report = lookahead_has_changed();
	}
	SpinLockRelease(&my_db->mutex);
	return sleep;
}

/*
 * Leave if the launcher has asked for that, or if there has been nothing to do
 * for long enough; else return.
 */
static void
scheduler_leave(TimestampTz now, const IdleExit *idle)
{
	bool		give_way;
	bool		give_way_idle;

	SpinLockAcquire(&my_db->mutex);
	give_way = (my_db->give_way == TS_GIVE_WAY);
	give_way_idle = (my_db->give_way != TS_STAY);
	SpinLockRelease(&my_db->mutex);

	if (idle->leave_at <= now)
	{
		if (failed_uncounted)
			scheduler_read(NULL, 0, DT_NOEND, true);
		if (idle_exit_begin(my_db, idle))
		{
			asleep = true;
			worker_pool_dismiss();
			ts_debug(DEBUG1, "database sleeps until %s", timestamptz_to_str(idle->wake));
			scheduler_quit(give_way_idle ? "its place is for another database" :
						   "it has had nothing to do for a while");
		}
	}
	else if (give_way && !idle->possible)
	{
		/* its workers end their runs; the next one finds their slots */
		worker_pool_dismiss();
		scheduler_quit("it is the turn of another database");
	}
}

/*
 * Leave to another scheduler what this one has put off until times of a clock
 * that was set back since: it reads everything afresh.
 */
static void
scheduler_start_anew(void)
{
	ereport(LOG,
			(errmsg("the clock was set back"),
			 errdetail("Tasks wait until it has come to their times.")));
	scheduler_quit("the clock was set back");
}

/* Sleep until that time, or until somebody sets the latch. */
static void
scheduler_sleep(TimestampTz wake)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = compat_wait_event("TaskshedSchedulerMain");
	ts_debug(DEBUG2, "scheduler waits until %s", timestamptz_to_str(wake));
	if (wake != DT_NOEND)
		enable_timeout_at(alarm_timeout, wake);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 PROCESS_MAX_SLEEP, wait_event);
	disable_timeout(alarm_timeout, false);
}

/*
 * Override what the database and the superuser have set for their sessions,
 * which is not meant for us: a serializable scheduler would take part in
 * conflicts, and one that exits on errors could not do without a transaction
 * that has failed.
 */
static void
scheduler_override_settings(void)
{
	static const char *const settings[][2] = {
		{"application_name", "taskshed scheduler"},
		{"role", "none"},
		{"search_path", "pg_catalog"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"synchronous_commit", "local"},
		{"statement_timeout", "0"},
		{"lock_timeout", "0"},
		{"transaction_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"exit_on_error", "off"}
	};

	for (int i = 0; i < lengthof(settings); i++)
		process_override_setting(settings[i][0], settings[i][1]);
}

/* Run as a scheduler: the round that the head of this file describes. */
void
ts_scheduler_main(Datum main_arg)
{
	Oid			database = DatumGetObjectId(main_arg);
	TsNote	   *notes;
	TimestampTz reread_from;
	TimestampTz wake = DT_NOEND;
	int			nnotes;

	scheduler_attach(database);
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, BGWORKER_BYPASS_ALLOWCONN);
	scheduler_override_settings();
	scheduler_check_database(database);
	alarm_timeout = RegisterTimeout(USER_TIMEOUT, scheduler_alarm_handler);
	known_roles_start();
	lookahead_start();
	worker_pool_start();
	notes = MemoryContextAlloc(TopMemoryContext, TS_NOTES * sizeof(TsNote));
	pgstat_report_activity(STATE_IDLE, NULL);

	/* what was running when the server died is written down first of all */
	lost_runs_add_crashed(database);

	/* begin with everything there is */
	SpinLockAcquire(&my_db->mutex);
	my_db->reread_from = DT_NOBEGIN;
	SpinLockRelease(&my_db->mutex);

	for (;;)
	{
		TimestampTz now;
		TimestampTz losses_again;
		TimestampTz admit_again;
		TimestampTz asked_again;
		int64		stuck_id;
		int			stuck_pid;
		bool		backlog = false;
		bool		hungry = false;
		bool		count_failed;
		bool		more_failed;
		bool		held;
		IdleExit	idle;

		ResetLatch(MyLatch);
		QueryCancelPending = false;
		process_interrupts();
		if (process_clock_was_set_back())
			scheduler_start_anew();

		/* look what has happened */
		reread_from = scheduler_take_notes(notes, &nnotes);
		worker_pool_collect(database);
		losses_again = maintenance_write_losses();
		while (worker_pool_take_stuck(&stuck_id, &stuck_pid))
			maintenance_report_stuck(stuck_id, stuck_pid);
		count_failed = scheduler_must_count_failed(nnotes > 0 || reread_from != DT_NOEND);
		if (nnotes > 0 || reread_from != DT_NOEND || count_failed || lookahead_wants_reading())
			scheduler_read(notes, nnotes, reread_from, count_failed);

		/* do what there is to do beside tasks */
		held = home_is_held(home);
		asked_again = held ? DT_NOEND : maintenance_settle_asked();
		admit_again = held ? DT_NOEND : maintenance_admit(database);
		more_failed = !held && maintenance_expire_failed();
		maintenance_maintain_history(my_db);

		/* hand out, then sleep or leave if nothing has come meanwhile */
		now = GetCurrentTimestamp();
		wake = ts_enabled && !held ? dispatch_round(database, now, &backlog, &hungry) : DT_NOEND;
		wake = Min(Min(wake, asked_again), Min(losses_again, admit_again));
		well_started = true;
		if (more_failed || lookahead_wants_reading())
			continue;
		idle_exit_look(my_db, now, wake, held, &idle);
		if (!scheduler_publish(now, backlog, hungry, wake))
			continue;
		scheduler_leave(now, &idle);
		scheduler_sleep(Min(wake, idle.leave_at));
	}
}
