/*-------------------------------------------------------------------------
 *
 * scheduler.h
 *		The process that hands tasks out.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#ifndef TASKSHED_SCHEDULER_SCHEDULER_H
#define TASKSHED_SCHEDULER_SCHEDULER_H

#include "postgres.h"

#include "lib/pairingheap.h"

#include "worker/worker.h"

/* ------------------------------------------------------------------------
 * task_queue.c
 */
/* Tasks of a role that wait for their time, and how far they have been read. */
typedef struct TaskQueue
{
	struct Role *role;			/* whose they are */
	pairingheap *waiting;		/* LookaheadTasks, earliest first */
	int			nwaiting;
	QueueKey	frontier;		/* all up to here has been read */
	bool		read_all;		/* and so has all that comes after it */
} TaskQueue;

/* A task that is known: it waits in a queue, or was handed to a worker. */
typedef struct LookaheadTask
{
	int64		id;				/* hash key */
	pairingheap_node node;		/* in queue->waiting, unless handed out */
	QueueKey	key;			/* when to hand it out */
	TimestampTz run_at;			/* as in the table; earlier if it was put off */
	TaskQueue  *queue;
	ItemPointerData alarm_tid;	/* where its alarm was read, or invalid */
	int			slot;			/* of the worker it was handed to, or -1 */
	TimestampTz handed_at;
	bool		changed;		/* noted while it was handed out */
	int			interruptions;	/* runs in a row that lost their worker */
} LookaheadTask;

extern void task_queue_init(TaskQueue *queue, struct Role *role);
extern void task_queue_free(TaskQueue *queue);
extern void task_queue_add(TaskQueue *queue, LookaheadTask *task);
extern void task_queue_remove(LookaheadTask *task);
extern LookaheadTask *task_queue_first(TaskQueue *queue);
extern bool task_queue_covers(const TaskQueue *queue, const QueueKey *key);

/* ------------------------------------------------------------------------
 * known_roles.c
 */
/* A role that has tasks or workers. */
typedef struct Role
{
	Oid			oid;			/* hash key */
	TaskQueue	queue;			/* its tasks; lookahead.c takes care of it */

	/* what is known of it, of which admission.c takes care */
	bool		checked;		/* it has been looked up */
	RoleState	state;
	bool		is_superuser;
	char	   *reason;			/* why its tasks do not run, or NULL */

	/* its workers, of which worker_pool.c takes care */
	int			nworkers;		/* those on their way, and to leave, included */
	int			nstaying;		/* of these, those that are not to leave */
	int			nstarting;		/* of these, those on their way */
	int			failed_starts;	/* in a row */
	TimestampTz asked_at;		/* when it last was given one */
	TimestampTz start_after;	/* none is started before this */
} Role;

extern void known_roles_start(void);
extern Role *known_roles_get(Oid oid);
extern int	known_roles_count(void);
extern void known_roles_prune(void);
extern Role *known_roles_next(bool restart);

/* ------------------------------------------------------------------------
 * lookahead.c
 */
/* How long (us) a task that was interrupted keeps others of its kind waiting. */
#define TS_SUSPECT_WATCH	(10 * USECS_PER_SEC)

extern void lookahead_start(void);
extern void lookahead_reread(Store *store, Snapshot snapshot, TimestampTz from);
extern void lookahead_note(Store *store, const TsNote *note);
extern void lookahead_look_later(int64 id, TimestampTz not_before);
extern bool lookahead_wants_reading(void);
extern void lookahead_read(Store *store, Snapshot snapshot);
extern LookaheadTask *lookahead_first(Role *role);
extern LookaheadTask *lookahead_find(int64 id);
extern bool lookahead_is_calm(bool waits, TimestampTz now, bool *empty, bool *locked_out);
extern int	lookahead_count_due(TimestampTz now, TimestampTz *oldest);
extern void lookahead_hand_out(LookaheadTask *task, int slot, TimestampTz now);
extern void lookahead_take_back(LookaheadTask *task);
extern bool lookahead_must_wait(LookaheadTask *task, TimestampTz now);
extern void lookahead_put_off(LookaheadTask *task, TimestampTz until);
extern void lookahead_look_again(LookaheadTask *task);
extern void lookahead_adopt(int64 id, Oid owner, int slot);
extern void lookahead_report(const TsReport *report);
extern bool lookahead_has_changed(void);
extern bool lookahead_take_recall(int slot);
extern bool lookahead_lost_worker(int slot, int64 running_id);

/* ------------------------------------------------------------------------
 * lost_runs.c
 */
extern void lost_runs_add(int64 id, const LostRun *run);
extern void lost_runs_add_crashed(Oid database);
extern bool lost_runs_exist(void);
extern bool lost_runs_write(Store *store);
extern void lost_runs_written(void);

/* ------------------------------------------------------------------------
 * asked.c
 */
extern void asked_note(int64 number);
extern void asked_note_all(void);
extern TimestampTz asked_settle_at(void);
extern void asked_settle(Store *store);
extern void asked_settled(void);

/* ------------------------------------------------------------------------
 * admission.c
 */
extern bool admission_is_needed(TimestampTz *again);
extern bool admission_check(Oid database);
extern bool admission_is_current(void);

/* ------------------------------------------------------------------------
 * worker_pool.c
 */
/* A run longer than this (us) holds up the tasks behind it. */
#define TS_LONG_RUN			2000

/* How soon (us) to look whether a run with tasks behind it has become long. */
#define TS_LONG_RUN_CHECK	5000

/* One slot, as last seen. */
typedef struct PoolWorker
{
	bool		known;			/* it is one of ours */
	uint32		generation;
	TsWorkerState state;
	Role	   *role;
	TimestampTz asked_at;
	int			outstanding;	/* handed out and not reported */
	int			unstarted;		/* of these, not taken by the worker yet */
	int			taken;			/* the others, as last seen */
	int64		typical;		/* us that its runs take; 0: unknown */
	TimestampTz ahead_until;	/* by then it should be done with what it was
								 * handed ahead of its time */
	bool		holds_up;		/* something due was put behind others */
	bool		retire;
	bool		shortage;		/* why it has gone, if it was not ready */
	TimestampTz idle_since;		/* with outstanding = 0 */
	int			pid;
	bool		stuck;			/* its run does not end, whatever is done */
	bool		stuck_reported;
	int64		running_id;		/* 0 between runs */
	TimestampTz running_since;
} PoolWorker;

typedef struct WorkerPool
{
	int			nworkers;		/* those on their way, and to leave, included */
	int			nstaying;		/* of these, those that are not to leave */
	PoolWorker	workers[FLEXIBLE_ARRAY_MEMBER]; /* by slot */
} WorkerPool;

extern WorkerPool *ts_pool;

extern void worker_pool_start(void);
extern void worker_pool_collect(Oid database);
extern void worker_pool_add(TsWorker *worker, Role *role, TimestampTz now);
extern void worker_pool_take_back(int slot);
extern void worker_pool_retire(int slot, const char *why);
extern void worker_pool_withdraw(int slot);
extern void worker_pool_dismiss(void);
extern bool worker_pool_take_stuck(int64 *id, int *pid);
extern bool worker_pool_is_calm(void);
extern bool worker_pool_is_empty(void);

/*
 * Return whether a worker has been at its run for long.  The clock may have been
 * set back since it began.
 */
static inline bool
worker_pool_is_slow(const PoolWorker *mine, TimestampTz now)
{
	return mine->running_id != 0 &&
		(now - mine->running_since > TS_LONG_RUN || mine->running_since - now > USECS_PER_SEC);
}

/* Return whether a worker is there to take tasks, and to stay. */
static inline bool
worker_pool_is_ready(const PoolWorker *mine)
{
	return mine->known && !mine->retire && mine->state == TS_WORKER_READY;
}

/* ------------------------------------------------------------------------
 * worker_limits.c
 */
/* A worker is started this long (us) before its role's next task is due. */
#define TS_START_AHEAD		250000

extern void worker_limits_shrink(void);
extern bool worker_limits_reached(const Role *role);
extern void worker_limits_withdraw(TimestampTz now);
extern TimestampTz worker_limits_ask(Oid database, Role **wanting, int nwanting, TimestampTz now);

/* ------------------------------------------------------------------------
 * dispatch.c
 */
extern TimestampTz dispatch_round(Oid database, TimestampTz now, bool *backlog, bool *hungry);

/* ------------------------------------------------------------------------
 * idle_exit.c
 */
/* Whether a scheduler can leave, as found in a round. */
typedef struct IdleExit
{
	bool		possible;		/* nothing is going on, nor due in a moment */
	bool		held;			/* all tasks are */
	bool		empty;			/* see TsDatabase */
	bool		locked_out;
	TimestampTz wake;			/* when there is something to do; or DT_NOEND */
	TimestampTz leave_at;		/* if nothing happens before; or DT_NOEND */
} IdleExit;

extern void idle_exit_look(TsDatabase *db, TimestampTz now, TimestampTz wake, bool held, IdleExit *idle);
extern bool idle_exit_begin(TsDatabase *db, const IdleExit *idle);

/* ------------------------------------------------------------------------
 * maintenance.c
 */
extern TimestampTz maintenance_write_losses(void);
extern TimestampTz maintenance_settle_asked(void);
extern TimestampTz maintenance_admit(Oid database);
extern void maintenance_report_stuck(int64 id, int pid);
extern void maintenance_maintain_history(TsDatabase *db);
extern bool maintenance_expire_failed(void);
extern void maintenance_mention_failed(int64 failed);

/* ------------------------------------------------------------------------
 * scheduler.c
 */
extern PGDLLEXPORT void ts_scheduler_main(Datum main_arg);

#endif							/* TASKSHED_SCHEDULER_SCHEDULER_H */
