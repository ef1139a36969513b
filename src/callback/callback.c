/*-------------------------------------------------------------------------
 *
 * callback.c
 *		Callbacks that are ready to be called, and when they are out of date.
 *
 * A callback is found by its name and the keys of its kwargs, as a call
 * name(key => value, ...) would be.  What was found is kept as a Callback:
 * the call as a prepared statement (callback_plan.c), and what is needed to
 * turn each value into one of the argument's type (callback_bind.c).
 * Callbacks are cached for each name, set of keys, role and search_path, and
 * found again when anything they depend on may have changed.  An argument of
 * a polymorphic type gets the type that comes nearest to the JSON value, so
 * there the kinds of the values belong to the cache's key as well.
 *
 * How the call is made is call.c's business.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/syscache.h"

#include "callback/callback.h"

/* Callbacks kept from one transaction to the next. */
#define CALLBACKS_KEPT	256

typedef struct CallbackEntry
{
	uint64		hash;			/* of name, role, path, keys and perhaps kinds */
	Callback   *callback;
} CallbackEntry;

static HTAB *callbacks = NULL;

/* Out of date, but perhaps still in the hands of somebody up the stack. */
static List *retired = NIL;

/* Raised whenever something in the catalogs changes that we depend on. */
static uint64 generation = 1;

/* Raised whenever the columns of a row type may have changed. */
static uint64 row_generation = 1;

static void
callback_syscache_callback(Datum arg, int cacheid, uint32 hashvalue)
{
	generation++;
}

/*
 * Look at row types again if a relation, or any, has changed, as the relcache
 * has been told: it may be the columns of a row type.  This comes at every
 * ANALYZE, which is not to cost those callbacks anything that have to do with
 * scalars only.
 */
void
callback_relation_changed(Oid relid)
{
	row_generation++;
}

/*
 * Return a number that changes whenever what a callback depends on may have
 * changed.
 */
uint64
callback_generation(void)
{
	return generation + row_generation;
}

static void
callback_drop(Callback *callback)
{
	if (callback->plan != NULL)
		DropCachedPlan(callback->plan);
	MemoryContextDelete(callback->context);
}

/* Take a callback out of use.  Its memory stays until nobody has it. */
static void
callback_retire(Callback *callback)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	retired = lappend(retired, callback);
	MemoryContextSwitchTo(old);
}

/* Free retired callbacks, and all if there are too many, except those held. */
static void
callback_free(bool held_too)
{
	if (callbacks != NULL && hash_get_num_entries(callbacks) > CALLBACKS_KEPT)
	{
		HASH_SEQ_STATUS scan;
		CallbackEntry *entry;

		hash_seq_init(&scan, callbacks);
		while ((entry = hash_seq_search(&scan)) != NULL)
		{
			callback_retire(entry->callback);
			hash_search(callbacks, &entry->hash, HASH_REMOVE, NULL);
		}
	}
	for (int i = list_length(retired); i-- > 0;)
	{
		Callback   *callback = list_nth(retired, i);

		if (callback->holders > 0 && !held_too)
			continue;
		retired = list_delete_nth_cell(retired, i);
		callback_drop(callback);
	}
}

/*
 * Do the same between transactions, or between runs, when nobody is left who
 * could hold one: whoever seems to has not come to let it go, for an error.
 */
void
callback_prune(void)
{
	callback_free(true);
}

/*
 * Hold a callback: it is freed no sooner than those who do let it go.  They
 * hold it while they run code of users, which may look for any number of
 * others.
 */
void
callback_hold(Callback *callback)
{
	callback->holders++;
}

void
callback_release(Callback *callback)
{
	Assert(callback->holders > 0);
	callback->holders--;
}

static void
callback_xact_callback(XactEvent event, void *arg)
{
	/* a worker prunes between runs: a callback of its may COMMIT */
	if (ts_my_worker == NULL &&
		(event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE))
		callback_prune();
}

/* Set the callbacks of the server: once a process. */
void
callback_init(void)
{
	CacheRegisterSyscacheCallback(PROCOID, callback_syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, callback_syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, callback_syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, callback_syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMMEMROLE, callback_syscache_callback, (Datum) 0);
	RegisterXactCallback(callback_xact_callback, NULL);
}

/*
 * Return the kind of a JSON value: n(umber), s(tring), b(oolean), 0 for null, {
 * for objects.  An array has that of its elements in upper case, if they all
 * are of the same; null goes with any, and with no other is _.  Else it has [.
 */
static char
callback_kind(const JsonbValue *value)
{
	JsonbContainer *container;
	char		kind = '_';

	switch (value->type)
	{
		case jbvNull:
			return '0';
		case jbvNumeric:
			return 'n';
		case jbvString:
			return 's';
		case jbvBool:
			return 'b';
		default:
			break;
	}
	container = value->val.binary.data;
	if (!JsonContainerIsArray(container))
		return '{';
	for (uint32 i = 0; i < JsonContainerSize(container); i++)
	{
		JEntry		entry = container->children[i];
		char		other;

		if (JBE_ISNULL(entry))
			continue;
		other = JBE_ISNUMERIC(entry) ? 'N' : JBE_ISSTRING(entry) ? 'S' :
			JBE_ISBOOL(entry) ? 'B' : '[';
		if (other == '[' || (kind != '_' && kind != other))
			return '[';
		kind = other;
	}
	return kind;
}

/*
 * Get the keys of a JSON object in jsonb's own order, and the kinds of their
 * values.  22023 if it is none, which only a task that was written by hand can
 * have.
 */
static int
callback_keys(Jsonb *kwargs, char ***keys, char **kinds)
{
	JsonbIterator *it;
	JsonbValue	value;
	JsonbIteratorToken token;
	int			n = 0;

	if (!JB_ROOT_IS_OBJECT(kwargs))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("kwargs must be a JSON object")));
	it = JsonbIteratorInit(&kwargs->root);
	*keys = palloc((JB_ROOT_COUNT(kwargs) + 1) * sizeof(char *));
	*kinds = palloc(JB_ROOT_COUNT(kwargs) + 1);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			(*keys)[n] = pnstrdup(value.val.string.val, value.val.string.len);
		else if (token == WJB_VALUE)
			(*kinds)[n++] = callback_kind(&value);
	}
	(*kinds)[n] = '\0';
	return n;
}

static bool
callback_is_execute(Oid funcid)
{
	return get_func_prokind(funcid) == PROKIND_PROCEDURE &&
		strcmp(get_func_name(funcid), "execute") == 0 &&
		get_func_namespace(funcid) == get_namespace_oid("taskshed", true);
}

/*
 * Fill in what is kept of a callback, with what is known of the catalogs from
 * the start: what changes meanwhile makes it stale.  Return false if that kept
 * the parser from finding the same function.
 */
static bool
callback_build(Callback *callback)
{
	MemoryContext old = CurrentMemoryContext;

	callback->generation = generation;
	callback->row_generation = row_generation;
	callback->polymorphic = callback->has_row_type = callback->needs_settings = false;
	callback->nparams = 0;
	callback->funcid = resolve_callback(callback->name, callback->keys, callback->nkeys);
	callback->kind = callback_is_execute(callback->funcid) ? CALLBACK_EXECUTE :
		get_func_prokind(callback->funcid) == PROKIND_PROCEDURE ? CALLBACK_PROCEDURE :
		CALLBACK_FUNCTION;
	MemoryContextSwitchTo(callback->context);
	callback->qualified = resolve_qualified_name(callback->funcid);
	callback->signature = resolve_signature(callback->funcid);
	callback_write_call(callback);
	callback->is_constant = (callback->kind == CALLBACK_FUNCTION && callback->nparams == 0 &&
							 func_volatile(callback->funcid) == PROVOLATILE_IMMUTABLE);
	MemoryContextSwitchTo(old);
	if (callback_plan(callback))
		return true;

	/*
	 * Another has come to that name since, or the parser chooses by types, of
	 * which polymorphic ones are a guess of ours.
	 */
	if (callback->generation == generation)
		resolve_report_ambiguous(resolve_name(callback->name));
	return false;
}

static bool
callback_matches(const Callback *callback, const char *name, Oid role, uint64 path,
				 char **keys, int nkeys, const char *kinds)
{
	if (callback->generation != generation || callback->role != role ||
		(callback->has_row_type && callback->row_generation != row_generation) ||
		callback->path != path || callback->nkeys != nkeys ||
		strcmp(callback->name, name) != 0)
		return false;
	for (int i = 0; i < nkeys; i++)
	{
		if (strcmp(callback->keys[i], keys[i]) != 0)
			return false;
	}
	return !callback->polymorphic || strcmp(callback->kinds, kinds) == 0;
}

/*
 * Return whether a name is without a schema.  Most need not be parsed for that: one
 * without a point is, and one that has a point and no quotes is not.
 */
static bool
callback_name_is_simple(const char *name)
{
	if (strchr(name, '.') == NULL)
		return true;
	return strchr(name, '"') != NULL && list_length(resolve_name(name)) == 1;
}

/*
 * Find the callback of a name that takes the keys of kwargs, for the current
 * user and, if the name is not qualified, the current search_path.  Valid until
 * the next is looked for, or as long as it is held.
 *
 * Errors: 42883 no such callback or arguments, 42725 more than one, 42809 not
 * to be called directly, 42501 no USAGE on the schema.
 */
Callback *
callback_prepare(const char *name, Jsonb *kwargs)
{
	Oid			role = GetUserId();
	char	  **keys;
	char	   *kinds;
	int			nkeys = callback_keys(kwargs, &keys, &kinds);
	uint64		path = 0;
	uint64		hash;
	CallbackEntry *entry;
	Callback   *callback;
	MemoryContext context;
	MemoryContext old;
	bool		found;

	/* what it is kept under */
	if (callback_name_is_simple(name))
	{
		List	   *schemas = fetch_search_path(true);
		ListCell   *lc;

		path = 1;
		foreach(lc, schemas)
			path = hash_combine64(path, lfirst_oid(lc));
	}
	hash = hash_combine64(path, role);
	hash = hash_combine64(hash, hash_bytes_extended((const unsigned char *) name, strlen(name), 0));
	for (int i = 0; i < nkeys; i++)
		hash = hash_combine64(hash, hash_bytes_extended((const unsigned char *) keys[i],
														strlen(keys[i]), i + 1));

	/* is it there? */
	if (callbacks == NULL)
	{
		HASHCTL		ctl = {.keysize = sizeof(uint64),.entrysize = sizeof(CallbackEntry)};

		callbacks = hash_create("taskshed callbacks", CALLBACKS_KEPT, &ctl,
								HASH_ELEM | HASH_BLOBS);
	}
	entry = hash_search(callbacks, &hash, HASH_FIND, NULL);
	if (entry != NULL && callback_matches(entry->callback, name, role, path, keys, nkeys, kinds))
		return entry->callback;

	/* make it */
	callback_free(false);
	context = AllocSetContextCreate(CurrentMemoryContext, "taskshed callback",
									ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	callback = palloc0(sizeof(Callback));
	callback->context = context;
	callback->name = pstrdup(name);
	callback->role = role;
	callback->path = path;
	callback->nkeys = nkeys;
	callback->keys = palloc((nkeys + 1) * sizeof(char *));
	for (int i = 0; i < nkeys; i++)
		callback->keys[i] = pstrdup(keys[i]);
	callback->kinds = pstrdup(kinds);
	MemoryContextSwitchTo(old);
	while (!callback_build(callback))
		CHECK_FOR_INTERRUPTS();

	/* keep it, in the place of one that is out of date or has the same hash */
	entry = hash_search(callbacks, &hash, HASH_ENTER, &found);
	if (found)
		callback_retire(entry->callback);
	entry->callback = callback;
	MemoryContextSetParent(context, TopMemoryContext);
	return callback;
}

/* Return whether its schema has others of its name. */
static bool
callback_is_overloaded(const Callback *callback)
{
	char	   *schema = get_namespace_name(get_func_namespace(callback->funcid));
	List	   *names = list_make2(makeString(schema), makeString(get_func_name(callback->funcid)));
	FuncCandidateList candidates = compat_function_candidates(names, -1, NIL, false);

	return candidates != NULL && candidates->next != NULL;
}

/* Check that role may call it: 42501. */
void
callback_check_privilege(const Callback *callback, Oid role)
{
	Oid			schema = get_func_namespace(callback->funcid);

	if (!compat_may_use_schema(schema, role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for schema %s", get_namespace_name(schema)),
				 errdetail("Role \"%s\" needs USAGE on it to call %s.",
						   GetUserNameFromId(role, false), callback->qualified)));
	if (!compat_may_execute(callback->funcid, role))
	{
		bool		is_procedure = get_func_prokind(callback->funcid) == PROKIND_PROCEDURE;

		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 is_procedure ?
				 errmsg("permission denied for procedure %s", callback->qualified) :
				 errmsg("permission denied for function %s", callback->qualified),
				 errdetail("Role \"%s\" needs EXECUTE on it.",
						   GetUserNameFromId(role, false)),
				 errhint("GRANT EXECUTE ON %s %s TO %s;", is_procedure ? "PROCEDURE" : "FUNCTION",
						 callback_is_overloaded(callback) ? callback->signature :
						 callback->qualified,
						 quote_identifier(GetUserNameFromId(role, false)))));
	}
}
