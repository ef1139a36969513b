/*-------------------------------------------------------------------------
 *
 * run.h
 *		What a run knows, leaves, and is followed by.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#ifndef TASKSHED_RUN_RUN_H
#define TASKSHED_RUN_RUN_H

#include "postgres.h"

#include "callback/callback.h"
#include "times/times.h"

/* ------------------------------------------------------------------------
 * run_start.c
 */
/*
 * How a run began: what its outcome is compared with, and all that its end
 * needs to know of the task.
 */
typedef struct RunStart
{
	int64		id;
	TimestampTz created_at;		/* of the task; ids can come again, these not */
	int64		revision;
	TimestampTz scheduled_at;	/* the time it is for */
	TimestampTz late_from;		/* it is not late before this; DT_NOEND: it
								 * has begun before, and is not late at all */
	TimestampTz started_at;
	TimestampTz previous_run_at;	/* DT_NOBEGIN if none */
	int			attempt;		/* counted from 1 */
	int			restarts;		/* of it, after runs that were cut off */
	int			worker_pid;
	const TaskRow *task;		/* all that the task is, as last read: what is
								 * changed during the run is not there */
	RowTids		tids;			/* known only in the transaction that looked */

	Oid			owner;
	NameData	owner_name;		/* as last known */
	char	   *task_id;
	char	   *group_id;		/* or NULL */
	char	   *callback;		/* as stored */
	bool		recurring;
	bool		lasting;		/* without times of its own */
	bool		follows;		/* it runs after others */
	bool		followed;		/* others run after it */
	Calendar	calendar;		/* its zone is NULL if unknown to this server */
	const char *no_grid;		/* why its next time cannot be told; or NULL */
	CatchUp		catch_up;
	int64		start_within;	/* us; -1: no limit */
	TimestampTz until;			/* DT_NOEND: no limit */
	int			max_runs;		/* 0: no limit */
	int			max_attempts;	/* 0: no limit */
	int64		retry_delay;	/* us */
	double		retry_backoff;
	int64		retry_max_delay;	/* us */
	int64		timeout;		/* us; 0: none */
	HistoryMode history;
	bool		failing;		/* the run before has failed */
	bool		extra;			/* beside the schedule: run_tasks */
	bool		by_hand;		/* the same, or all that is left of a task */
	TimestampTz asked_at;		/* when one more run was last asked for; or
								 * DT_NOBEGIN */
	bool		impatient;		/* its end must not wait for others: it shares
								 * a transaction */
} RunStart;

extern void run_start_read(RunStart *start, const TaskRow *task, const AlarmRow *alarm,
						   TimestampTz now);
extern void run_start_read_limits(RunStart *start, const TaskRow *task);
extern bool run_start_may_share(const RunStart *start);

/* ------------------------------------------------------------------------
 * catch_up.c
 */
extern bool catch_up_is_missed(const RunStart *start);
extern bool catch_up_next_missed(const RunStart *start, TimestampTz *time);
extern bool catch_up_had_all_runs(int64 runs, int max_runs);
extern bool catch_up_is_over(TimestampTz next, TimestampTz until, int64 runs, int max_runs);
extern bool catch_up_next(const RunStart *start, bool missed, int64 runs, TimestampTz *next);

/* How a run has ended. */
typedef struct RunEnd
{
	const RunStart *start;
	RunStatus	status;
	const char *result;			/* of one that has succeeded; or NULL */
	const ErrorData *error;		/* of one that has not; or NULL */
	int64		run_id;			/* its number in the history; 0 if it has none */
	bool		unstarted;		/* it has failed before it began */
	bool		recovered;		/* it has succeeded, and the one before had
								 * not */
	bool		paused;			/* its task is paused, since it fails all the
								 * time */
} RunEnd;

/* ------------------------------------------------------------------------
 * history.c
 */
extern void history_relation_changed(Oid relid);
extern int64 history_record(const RunEnd *run);
extern void history_collect(void);
extern void history_write(void);
extern void history_discard(void);
extern void history_lock_for_drop(void);
extern void history_maintain(TsDatabase *db);

/* ------------------------------------------------------------------------
 * failure.c
 */
/* How a run has failed. */
typedef struct Failure
{
	RunStatus	status;
	const ErrorData *error;
	const char *callback;		/* what was called, an alias resolved */
	const char *message;		/* of the error, without values of kwargs */
} Failure;

extern text *failure_text(const char *message);
extern char *failure_one_line(const char *text);
extern void failure_log_line(const RunStart *start, const Failure *failure, const char *detail);
extern void failure_log(const RunStart *start, const Failure *failure, AlarmRow *alarm);
extern Failure failure_found(const RunStart *start, RunStatus status, const ErrorData *error);

/* ------------------------------------------------------------------------
 * last_run.c
 */
extern void last_run_set(AlarmRow *alarm, RunStatus status, const char *sqlstate,
						 const char *message);
extern void last_run_note(AlarmRow *alarm, RunEnd *run);

/* ------------------------------------------------------------------------
 * alarm_lock.c
 */
extern void alarm_lock_init(void);
extern TM_Result alarm_lock(Store *store, int64 id, const RowTids *tids, AlarmRow *alarm,
							bool impatient);

/* ------------------------------------------------------------------------
 * waiting.c
 */
/* A child that is considered. */
typedef struct WaitingTask
{
	AlarmRow   *alarm;			/* locked */
	int64		id;
	bool		lasting;
	AfterStatus after;
	TimestampTz latest;			/* the latest time of its parents' runs */
} WaitingTask;

extern RunStatus waiting_edge_status(const EdgeRow *edge);
extern bool waiting_is_failure(RunStatus status);
extern TimestampTz waiting_latest(Store *store, int64 id, TimestampTz latest);
extern WaitingTask waiting_task(AlarmRow *alarm, const TaskRow *task);
extern void waiting_write_due(Store *store, const WaitingTask *child);
extern void waiting_begin(AlarmRow *alarm, const TaskRow *task);
extern bool waiting_consider(Store *store, AlarmRow *alarm, const TaskRow *task, bool all);

/* ------------------------------------------------------------------------
 * followers.c
 */
/* How a task has ended that others run after, or that it is gone. */
typedef struct ParentEnd
{
	int64		id;
	Oid			owner;			/* whose it is, or was */
	bool		removed;		/* by somebody: the rest is not set */
	bool		gone;			/* it is no more */
	RunStatus	status;
	TimestampTz run_at;			/* the time that its run was for */
	const char *sqlstate;		/* these may be NULL */
	const char *message;
	const char *result;
} ParentEnd;

/* A task that ends since one that it runs after has, or may do so. */
typedef struct FollowerEnd
{
	int64		id;
	char	   *lost;			/* name of that one, if it was removed */
	bool		skipped;		/* it is to be skipped; if neither, it is to
								 * be considered: */
	bool		all;			/* more may be new than one end */
} FollowerEnd;

/* The tasks that run after another, in the order in which they are locked. */
typedef struct FollowerName
{
	int64		id;
	char	   *task_id;
} FollowerName;

typedef struct FollowerNames
{
	int			nedges;			/* also to tasks that are gone */
	int			n;
	int			locked;			/* so many of them are */
	FollowerName *names;
} FollowerNames;

/* What comes after a run of a lasting task. */
typedef enum NextRound
{
	ROUND_WAITS,
	ROUND_BEGUN,				/* some have ended for it already */
	ROUND_OVER,					/* none: a parent has had its last run */
	ROUND_LOST					/* none: a parent was removed */
} NextRound;

extern FollowerNames *followers_find(Store *store, int64 parent);
extern void followers_lock(Store *store, FollowerNames *names, const char *before);
extern bool followers_try_lock(Store *store, const AlarmRow *alarm, int levels);
extern void followers_mark(EdgeRow *edge, const ParentEnd *end, bool ahead);
extern void followers_settle(Store *store, const ParentEnd *end, List **endings);
extern NextRound followers_next_round(Store *store, AlarmRow *alarm, char **lost);

/* ------------------------------------------------------------------------
 * once_more.c
 */
extern void once_more_beside(Store *store, AlarmRow *alarm);
extern void once_more_ask(Store *store, AlarmRow *alarm, const TaskRow *task);

/* ------------------------------------------------------------------------
 * retry.c
 */
extern bool retry_is_shortage(const ErrorData *error);
extern bool retry_outlast_shortage(const RunStart *start, const Failure *failure,
								   AlarmRow *alarm, TimestampTz *retry_at);
extern bool retry_next(const RunStart *start, TimestampTz *retry_at);

/* ------------------------------------------------------------------------
 * ending.c
 */
/* What an end leaves of the task. */
typedef enum Ending
{
	/* of a run; the task goes on */
	ENDING_AGAIN,				/* it is tried again, for the same time */
	ENDING_NEXT,				/* it is over */

	/* of a run, and with it of the task */
	ENDING_DONE,				/* its rows are gone: this was the last run */
	ENDING_FAILED,				/* it stays as failed */

	/* of the task */
	ENDING_REMOVED,				/* somebody has removed it */
	ENDING_EXPIRED				/* it had failed, long ago */
} Ending;

extern void ending_go_on(Store *store, AlarmRow *alarm, Ending ending, const RunEnd *run);
extern void ending_fail(Store *store, AlarmRow *alarm, const RunEnd *run);
extern bool ending_try_remove(Store *store, const RunEnd *run);
extern void ending_remove_done(Store *store, AlarmRow *alarm, const RunEnd *run);
extern void ending_remove(Store *store, AlarmRow *alarm, List **removed);
extern void ending_settle_removed(Store *store, List *removed);
extern void ending_remove_remains(Store *store, TaskRow *task);
extern void ending_consider(Store *store, int64 id);
extern void ending_moved(Store *store, const AlarmRow *alarm);
extern void ending_lost(Store *store, int64 id, const char *lost);
extern bool ending_expire(Store *store, int64 id, TimestampTz before);

/* ------------------------------------------------------------------------
 * on_failure.c
 */
/* How the names begin of tasks that tell of the failure of others. */
#define HOOK_PREFIX		"on_failure/"

extern bool on_failure_is_alias(const char *name);
extern Jsonb *on_failure_sample(void);
extern void on_failure_settle(Store *store, const AlarmRow *alarm, Ending ending,
							  const RunEnd *run);
extern void on_failure_prepare(const char *task_id, Oid owner, char **callback, Jsonb **kwargs);

/* ------------------------------------------------------------------------
 * notice.c
 */
/* The option of a task that has its notices tell the result, too. */
#define NOTIFY_RESULT	"notify_result"

extern void notice_settle(const AlarmRow *alarm, Ending ending, const RunEnd *run);

/* ------------------------------------------------------------------------
 * outcome.c
 */
/* What the end of a run finds of its task. */
typedef enum Found
{
	FOUND_GONE,					/* it was removed */
	FOUND_CHANGED,				/* its revision was raised */
	FOUND_SAME
} Found;

extern Found outcome_lock_alone(Store *store, const RunStart *start, AlarmRow *alarm,
								TsReport *report);
extern void outcome_give_up(Store *store, AlarmRow *alarm, const RunEnd *run, TsReport *report);
extern void outcome_missed(Store *store, const RunStart *start, TsReport *report);
extern void outcome_succeeded(Store *store, const RunStart *start, const char *result,
							  TsReport *report);
extern void outcome_failed(Store *store, const RunStart *start, const Failure *failure,
						   TsReport *report);
extern bool outcome_orphaned(Store *store, int64 id, Oid owner, const char *reason);

/* ------------------------------------------------------------------------
 * cut_off.c
 */
/* A run whose worker has gone, as far as its slot tells. */
typedef struct LostRun
{
	int64		revision;
	TimestampTz scheduled_at;
	TimestampTz started_at;
	int			attempt;
	int			worker_pid;
	int			slot;			/* or -1 */
	Oid			owner;			/* as whom it ran */
	bool		timed_out;
	bool		crashed;		/* with the whole server */
	bool		bystander;		/* the task is not to blame: another run
								 * probably is, or nobody */
} LostRun;

extern bool cut_off_begin(Store *store, RunStart *start, TsReport *report);
extern bool cut_off_record(Store *store, int64 id, const LostRun *lost, bool *again,
						   int *interruptions);

#endif							/* TASKSHED_RUN_RUN_H */
